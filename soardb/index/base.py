"""The contract of an index: what every one of them promises.

    collection, cli, benchmarks -> [base.py] <- flat.py, ivf.py

Scores are exact for the ids returned, best first, bigger is closer; equal scores come in order of
id. An index may be searched from several threads at once; changing it while it is searched is the
caller's to prevent.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Never

import numpy.typing as npt

from soardb.clustering import Progress
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64, STATUS, Metric

__all__ = ["SEARCH_KEYWORDS", "Index", "refuse_bad_query"]

SEARCH_KEYWORDS = ("k", "nprobe", "rerank", "stop", "target_recall", "exact", "threads")


class Index(ABC):
    """Vectors under ids, searchable by closeness.

    d and metric are fixed; `len(index)` is the number of vectors held.
    """

    d: int
    metric: Metric

    @property
    @abstractmethod
    def is_trained(self) -> bool:
        """Whether add() may be called."""

    @abstractmethod
    def __len__(self) -> int:
        """Vectors held."""

    @abstractmethod
    def train(self, vectors: npt.ArrayLike, progress: Progress | None = None) -> None:
        """Learn whatever the index needs from (n, d) vectors; none are stored.

        progress is called with (stage, share done). Errors: InvalidArgument for bad vectors, and
        where an index that has to learn already holds some.
        """

    @abstractmethod
    def add(
        self,
        vectors: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store (n, d) vectors under (n,) int64 ids >= 0; without ids, the next free numbers.

        All or nothing. Errors: NotTrained; InvalidArgument for bad vectors, for an id twice, or one
        that is already there (remove it first).
        """

    @abstractmethod
    def remove(self, ids: npt.ArrayLike) -> int:
        """Forget (m,) ids; those that are not there are ignored. Returns how many were removed."""

    @abstractmethod
    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        stop: float | None = None,
        target_recall: float | None = None,
        exact: bool = False,
        threads: int = 1,
        **unknown: Never,
    ) -> tuple[F32, I64]:
        """The k closest vectors of each of (nq, d) queries.

        Returns (scores (nq, k) float32, ids (nq, k) int64), best first. nprobe lists are visited
        and `rerank` candidates scored again; None means the index's default. stop: of these lists,
        those are passed over whose centroids score so many standard deviations lower than the
        candidates so far that they can hardly hold a neighbour (3 is a good number); None visits
        all. target_recall: the index chooses all three so that this share of the true k is found,
        by what it has measured.
        exact: every vector is scored. Errors: InvalidArgument for bad queries, k beyond what is
        held, an empty index, an unknown keyword, a target_recall beside a setting.
        """

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Index:
        """Map a file of save(). Errors: NotFound, CorruptStorage, InvalidArgument.

        Reads the whole file once for its checksums. verify=False takes the arrays unread, so that
        a large index opens at once: for a file that was checked before, on a disk that is trusted.
        """

    @abstractmethod
    def validate(self) -> None:
        """Check every invariant in O(n); CorruptStorage names the first one that does not hold."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes by part, spare room included."""


def refuse_bad_query(status: int) -> None:
    """Raise what a kernel's search said of a query: see kernels.layout.STATUS."""
    if status <= 0:
        return
    query, what = status // 4, STATUS[status % 4]
    if what == "zero vector":
        raise InvalidArgument(
            f"expected queries with a direction under cosine, got a zero vector at {query}"
        )
    raise InvalidArgument(
        f"expected finite queries whose squares fit float32, got NaN, infinity or too large a "
        f"value in query {query}"
    )
