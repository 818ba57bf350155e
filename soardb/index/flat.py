"""Exact search over every vector: small collections, and the judge of all other indexes.

    base.py <- [flat.py] -> rows.py, tiles.py, kernels (exact_topk)

No training, no approximation, O(n d) a query. `nprobe`, `rerank` and `target_recall` are accepted
and mean nothing.
"""

from __future__ import annotations

import os
from typing import Never

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_dim, as_ids, as_int, as_queries, as_vectors
from soardb.clustering import Progress
from soardb.curve import as_target
from soardb.errors import CorruptStorage, InvalidArgument
from soardb.index.base import SEARCH_KEYWORDS, Index, refuse_bad_query
from soardb.index.plan import reject_unknown
from soardb.index.rows import Rows
from soardb.index.tiles import ByteSearch, CodedRows, closest, pays_exactly
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64, STATUS, Metric
from soardb.metrics import as_metric, unit_rows
from soardb.storage.format import read_arrays, write_arrays

__all__ = ["FlatIndex", "as_compared_queries", "by_id", "check_k", "check_rows", "exact_search"]


_WORTH_CODING = 512  # queries after which an 8-bit copy of the vectors has paid


def check_k(k: object, held: int) -> int:
    """k within 1..held, or InvalidArgument; an empty index has its own message."""
    if held == 0:
        raise InvalidArgument("expected an index that holds vectors, got an empty one; add() first")
    return as_int(k, "k", 1, held, f"the index holds {held} vectors")


def check_rows(rows: Rows, metric: Metric) -> None:
    """CorruptStorage unless ids are distinct and vectors finite (and unit length under cosine)."""
    ids = np.sort(rows.ids)
    if (ids < 0).any() or (ids[1:] == ids[:-1]).any():
        raise CorruptStorage("an id is negative or stands twice")
    for numbers, vectors in rows.pieces():
        squares = np.einsum("ij,ij->i", vectors, vectors)
        if not np.isfinite(squares).all():
            row = numbers[(~np.isfinite(squares)).argmax()]
            raise CorruptStorage(f"row {row} is not finite")
        if metric == "cosine" and (np.abs(squares - 1) > 1e-4).any():
            row = numbers[np.abs(squares - 1).argmax()]
            raise CorruptStorage(f"row {row} is not of unit length")


def as_compared_queries(queries: F32, metric: Metric) -> F32:
    """(nq, d) float32 queries as the metric compares them, or InvalidArgument for a bad one."""
    squares = np.einsum("ij,ij->i", queries, queries)
    bad = ~np.isfinite(squares)
    if bad.any():
        refuse_bad_query(int(bad.argmax()) * 4 + STATUS.index("not finite"))
    if metric != "cosine":
        return queries
    is_zero = ~queries.any(axis=1)
    if is_zero.any():
        refuse_bad_query(int(is_zero.argmax()) * 4 + STATUS.index("zero vector"))
    return unit_rows(queries)


def exact_search(rows: Rows, metric: Metric, queries: F32, k: int, threads: int) -> tuple[F32, I64]:
    """Every row scored: (scores (nq, k), ids (nq, k)), ties to the lower id."""
    compared = as_compared_queries(queries, metric)
    if rows.form.precision == "float32":
        scores, found = active.exact_topk(rows.vectors, compared, k, metric, threads)
    else:
        scores, found = closest(rows.pieces(), compared, k, metric, threads)
    return by_id(scores, rows.ids[found])


def by_id(scores: F32, ids: I64) -> tuple[F32, I64]:
    """Scores (nq, k), best first, and their ids, with equal scores in order of id."""
    if scores.shape[1] < 2 or not (scores[:, 1:] == scores[:, :-1]).any():
        return scores, ids
    order = np.lexsort((ids, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


class FlatIndex(Index):
    """Exact nearest neighbours.

    index = FlatIndex(d=100, metric="cosine")
    index.add(vectors, ids)
    scores, ids = index.search(queries, k=10)
    """

    _KIND = "flat-index"

    def __init__(self, d: int, metric: str = "cosine") -> None:
        self.d = as_dim(d)
        self.metric = as_metric(metric)
        self._rows = Rows(self.d)
        self._forget_bytes()

    def _forget_bytes(self) -> None:
        self._bytes: ByteSearch | None = None
        self._byte_size = self._asked = 0

    @property
    def is_trained(self) -> bool:
        """Always: there is nothing to learn."""
        return True

    def __len__(self) -> int:
        return len(self._rows)

    def train(self, vectors: npt.ArrayLike, progress: Progress | None = None) -> None:
        """Check the vectors; nothing is learnt."""
        as_vectors(vectors, self.d, self.metric)
        if progress:
            progress("train", 1.0)

    def add(
        self,
        vectors: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See Index.add. Under cosine the vectors are stored at unit length."""
        checked = as_vectors(vectors, self.d, self.metric)
        new = self._rows.new_ids(None if ids is None else as_ids(ids, len(checked)), len(checked))
        self._rows.append(unit_rows(checked) if self.metric == "cosine" else checked, new)
        self._forget_bytes()
        if progress:
            progress("add", 1.0)

    def remove(self, ids: npt.ArrayLike) -> int:
        """See Index.remove."""
        rows = self._rows.find(np.unique(as_ids(ids)))
        self._rows.remove(rows[rows >= 0])
        self._forget_bytes()
        return int((rows >= 0).sum())

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        stop: float | None = None,
        target_recall: float | None = None,
        exact: bool = True,
        threads: int = 1,
        **unknown: Never,
    ) -> tuple[F32, I64]:
        """See Index.search; always exact.

        After some hundreds of queries an 8-bit copy of the vectors is made, where that is sooner
        searched: the answers stay the same.
        """
        reject_unknown(unknown, SEARCH_KEYWORDS)
        if target_recall is not None:
            as_target(target_recall)
        del nprobe, rerank, stop, exact
        checked = as_queries(queries, self.d)
        k = check_k(k, len(self))
        threads = as_int(threads, "threads", 1, 1024)
        self._asked += len(checked)
        if self._asked < _WORTH_CODING or not pays_exactly(len(self), self.d):
            return exact_search(self._rows, self.metric, checked, k, threads)
        search = self._bytes
        if search is None:
            search, self._byte_size = CodedRows.search_over(self._rows.vectors, self.metric)
            self._bytes = search
        compared = as_compared_queries(checked, self.metric)
        scores, rows = search.search(compared, k, threads=threads)
        return by_id(scores, self._rows.ids[rows])

    def save(self, path: str | os.PathLike[str]) -> None:
        """See Index.save."""
        parameters = {"d": self.d, "metric": self.metric}
        write_arrays(path, self._KIND, parameters, self._rows.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> FlatIndex:
        """See Index.load."""
        parameters, arrays = read_arrays(path, cls._KIND, verify)
        try:
            index = cls(parameters["d"], parameters["metric"])
            index._rows = Rows.of(arrays, index.d)
        except (KeyError, TypeError, ValueError, CorruptStorage) as error:
            raise CorruptStorage(f"{path}: the contents are not a flat index's: {error}") from None
        return index

    def validate(self) -> None:
        """See Index.validate."""
        check_rows(self._rows, self.metric)

    def memory(self) -> dict[str, int]:
        """Bytes of vectors, ids, what finds an id, and the 8-bit copy where there is one."""
        sizes = self._rows.memory()
        parts = {name: sizes[name] for name in ("vectors", "ids", "lookup")}
        return parts | ({"bytes": self._byte_size} if self._byte_size else {})
