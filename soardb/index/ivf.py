"""SoarIndex: spilled IVF with 4-bit anisotropic codes, 8-bit re-ranking and exact scores.

    base.py <- [ivf.py] -> model.py, stored.py, lists.py, rows.py, form.py, plan.py, kernels

A model is learnt once and codes every vector that is added (model.py has the order of a build and
what the metrics come down to); the codes stand in lists, the vectors in rows.
A search ranks the centroids, scans the codes of the best lists by table look-ups, joins the two
copies of a vector, re-ranks in 8 bits and then from the vectors as they are kept (form.py): one
native call (kernels.IvfSearcher).

Nothing here learns, codes or knows the file's arrays by name.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Never, Unpack

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_dim, as_ids, as_int, as_queries, as_vectors
from soardb.clustering import Progress
from soardb.curve import DEFAULT_TARGET, Curves, Effort, Expected, as_only_target, as_target
from soardb.errors import CorruptStorage, InvalidArgument, NotTrained
from soardb.index.base import SEARCH_KEYWORDS, Index, refuse_bad_query
from soardb.index.bundle import bundle
from soardb.index.exam import LEAST, Report, measure
from soardb.index.flat import as_compared_queries, by_id, check_k, check_rows, exact_search
from soardb.index.form import Form
from soardb.index.layout import choice_for
from soardb.index.lists import CodeLists
from soardb.index.model import Model, as_compared, store_stride
from soardb.index.plan import (
    BuildOptions,
    BuildParams,
    as_real,
    choose_search,
    default_nprobe,
    default_rerank,
    reject_unknown,
)
from soardb.index.rounding import counted
from soardb.index.rows import Rows
from soardb.index.stored import pack, unpack
from soardb.index.tiles import ByteSearch, is_cheaper_by_bytes, pays_exactly
from soardb.kernels.dispatch import Searcher, active
from soardb.kernels.layout import F32, I32, I64, U8, BoundSearch, Metric, SearchPlan
from soardb.metrics import as_metric
from soardb.storage.format import read_arrays, write_arrays

__all__ = ["SoarIndex"]

_COUNT = (int, type(None))  # what a knob may be to be looked up: True == 1 would be found too
_NUMBER = (float, int, type(None))
_STALE = 0.1  # share of the vectors that may come or go before a curve no longer holds
_BATCH = 16_384


class SoarIndex(Index):
    """Approximate nearest neighbours by spilled partitions.

        index = SoarIndex(d=100, metric="cosine")
        index.train(vectors)
        index.add(vectors, ids)
        scores, ids = index.search(queries, k=10, target_recall=0.9)

    Keyword options are BuildParams'; whatever is left out is chosen by train() from n, d and
    metric, or with layout="measured" by what searches of a sample cost. A collection trained on
    few vectors stays exact (nlist 0).
    """

    _KIND = "soar-index"

    def __init__(self, d: int, metric: str = "cosine", **options: Unpack[BuildOptions]) -> None:
        self.d = as_dim(d)
        self.metric: Metric = as_metric(metric)
        self.params = BuildParams.of(dict(options), self.metric)
        self._model: Model | None = None
        self._is_exact = False
        self._lists: CodeLists | None = None
        self._rows = self._no_rows(None)
        self._homes: I32 | None = None
        self._searcher: Searcher | None = None
        self._bytes: ByteSearch | None = None
        self._plans: dict[tuple[Any, ...], SearchPlan] = {}
        self._bound: dict[tuple[Any, ...], BoundSearch] = {}  # by the same keys
        self._curves: Curves | None = None
        self._changes = 0  # vectors that came or went since the curves were measured

    # ------------------------------------------------------------------ what it is

    @property
    def is_trained(self) -> bool:
        """Whether train() has run."""
        return self._model is not None or self._is_exact

    @property
    def nlist(self) -> int:
        """Partitions; 0 while untrained or exact."""
        return len(self._model.centroids) if self._model else 0

    @property
    def soar_lambda(self) -> float:
        """The weight in use; 0 is plain IVF."""
        return self._model.choice.soar_lambda if self._model else 0.0

    @property
    def centroids(self) -> F32:
        """(nlist, d) float32 centroids as scored; under l2 relative to the training mean."""
        return self._model.centroids if self._model else np.empty((0, self.d), np.float32)

    @property
    def default_nprobe(self) -> int:
        """Partitions that a search visits when it is not told; 0 while untrained or exact."""
        return default_nprobe(self.nlist, 2 if self.soar_lambda > 0 else 1)

    @property
    def spilled_share(self) -> float:
        """Share of the vectors that stand in two lists."""
        if self._lists is None or not len(self):
            return 0.0
        return len(self._lists) / len(self) - 1

    def describe(self) -> dict[str, Any]:
        """The parameters in use, chosen ones included: JSON values."""
        chosen = asdict(self._model.choice) if self._model else {"nlist": 0}
        chosen["nlist"] = self.nlist
        sub_spaces = {"sub_spaces": self._model.product.m} if self._model else {}
        if self._model:
            chosen["rotate"] = self._model.product.rotation is not None
        return {"d": self.d, "metric": self.metric} | asdict(self.params) | chosen | sub_spaces

    def __len__(self) -> int:
        return len(self._rows)

    # ------------------------------------------------------------------ building

    def train(self, vectors: npt.ArrayLike, progress: Progress | None = None) -> None:
        """Learn partitions and codebooks from (n, d) vectors; see Index.train.

        Costs about iterations * n * nlist * d multiply-adds, n being at most
        nlist * points_per_centroid; layout="measured" a minute or more besides (choose_layout).
        """
        if len(self):
            raise InvalidArgument(
                f"expected an empty index to train, got one with {len(self)} vectors; "
                "make a new one and add to it"
            )
        checked = as_vectors(vectors, self.d, self.metric)
        if not len(checked):
            raise InvalidArgument("expected at least one training vector, got none")
        choice = choice_for(checked, self.metric, self.params, len(checked), progress)
        if choice.nlist == 0:
            self._model, self._lists, self._is_exact = None, None, True
            self._rows = self._no_rows(None)
            return
        self._model = Model.train(checked, choice, self.params, self.metric, progress)
        self._is_exact = False
        self._lists = CodeLists(self.nlist, self._model.product.m)
        self._rows = self._no_rows(self._model)
        self._homes, self._curves = None, None
        self._forget_searches()

    def _no_rows(self, model: Model | None) -> Rows:
        form = Form.of(self.params.precision, self.metric, model)
        if model is None:
            return Rows(self.d, form=form)
        return Rows(self.d, store_stride(self.d), self.metric == "l2", form)

    def add(
        self,
        vectors: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See Index.add. Costs one to three (n, d) x (d, nlist) products and the encoding.

        Reads the vectors a batch at a time, so they may be a memory-mapped array (np.load with
        mmap_mode); float32 in C order is read in place, anything else is converted first. What is
        kept of them is the build parameter `precision`'s to say.
        """
        if not self.is_trained:
            raise NotTrained("expected a trained index, got a new one; call train() first")
        checked = as_vectors(vectors, self.d, self.metric)
        new = self._rows.new_ids(None if ids is None else as_ids(ids, len(checked)), len(checked))
        if not len(checked):
            return
        if self._model is None or self._lists is None:
            self._rows.append(self._as_kept(checked), new)
            return
        first, counts = len(self), self._lists.count.copy()
        try:
            self._fill(self._model, self._lists, checked, new, progress)
        except BaseException:
            self._lists.count[:] = counts
            self._rows.truncate(first)
            self._homes = None
            self._changed(0)
            raise
        self._changed(len(new))

    def _fill(
        self,
        model: Model,
        lists: CodeLists,
        vectors: F32,
        ids: I64,
        progress: Progress | None,
    ) -> None:
        """Add checked vectors, in two passes over them of a batch at a time.

        What is held besides the index is a batch and 16 bytes a vector: `vectors` may be mapped
        from a file that is larger than the memory.
        """
        n, old = len(vectors), len(self)
        parts = np.empty((n, 2), np.int32)
        for first in range(0, n, _BATCH):
            if progress:
                progress("assign", first / n)
            batch = slice(first, min(first + _BATCH, n))
            parts[batch] = model.assign(self._as_kept(vectors[batch]), self.params)
        order = None
        if not old:
            # Rows in list order: candidates of one list then lie together in memory.
            order = np.argsort(parts[:, 0], kind="stable")
            lists.reserve(np.bincount(parts[parts >= 0], minlength=self.nlist))
            self._rows.reserve(n)
        for first in range(0, n, _BATCH):
            if progress:
                progress("encode", first / n)
            batch = slice(first, min(first + _BATCH, n))
            chosen = batch if order is None else order[batch]
            compared = self._as_kept(vectors[chosen])
            centred = compared - model.mean
            bias = 0.5 * np.square(centred).sum(axis=1) if self.metric == "l2" else None
            store = model.scalar.encode(centred, store_stride(self.d))
            rows = self._rows.append(compared, ids[chosen], store, bias).astype(np.uint32)
            copies = model.code(compared, parts[chosen], self.params)
            lists.append(copies.lists, rows[copies.owners], copies.codes)
        if self._homes is not None:
            homes = parts if order is None else parts[order]  # in order of row
            self._homes = np.concatenate([self._homes, homes])
        if progress:
            progress("encode", 1.0)

    def _as_kept(self, vectors: F32) -> F32:
        return self._rows.form.rounded(as_compared(vectors, self.metric))

    def remove(self, ids: npt.ArrayLike) -> int:
        """See Index.remove. Both copies go; costs O(n) once, then the touched lists."""
        rows = self._rows.find(np.unique(as_ids(ids)))
        gone = rows[rows >= 0]
        if not len(gone):
            return 0
        if self._lists is None:
            self._rows.remove(gone)
            return len(gone)
        n = len(self)
        if self._homes is None:
            self._homes = self._lists.homes(n)
        moved_from, moved_to = self._rows.remove(gone)
        touched = np.unique(self._homes[np.concatenate([gone, moved_from])])
        new_row = np.arange(n)
        new_row[gone] = -1
        new_row[moved_from] = moved_to
        for part in touched[touched >= 0]:
            renamed = new_row[self._lists.list_rows(part)]
            keep = renamed >= 0
            self._lists.replace(part, keep, renamed[keep].astype(np.uint32))
        self._homes[moved_to] = self._homes[moved_from]
        self._homes = self._homes[: len(self)]
        self._changed(len(gone))
        return len(gone)

    def _changed(self, count: int) -> None:
        """So many vectors came or went."""
        self._forget_searches()
        self._changes += count
        if self._curves is not None and self._changes > _STALE * self._curves.n:
            self._curves = None

    def _forget_searches(self) -> None:
        self._searcher, self._bytes, self._plans, self._bound = None, None, {}, {}

    # ------------------------------------------------------------------ searching

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
        """See Index.search. Where the visited lists hold fewer than k vectors, more are visited.

        The first search with a target_recall measures the curves, as tune() does; one that no
        setting reaches is met by an exact search. Once there are curves, a search that is told
        nothing aims at 0.95.

        A batch that does not say nprobe is answered exactly where scoring every vector costs less
        than visiting the default number of lists.
        """
        if (
            type(k) is int
            and type(nprobe) in _COUNT
            and type(rerank) in _COUNT
            and type(stop) in _NUMBER
            and type(target_recall) in _NUMBER
            and type(threads) is int
            and threads == 1
            and not exact
            and not unknown
        ):
            bound = self._bound.get((k, nprobe, rerank, stop, target_recall))
            found = None if bound is None else bound(queries)
            if found is not None:
                return found
        if unknown:
            reject_unknown(unknown, SEARCH_KEYWORDS)
        checked = as_queries(queries, self.d)
        if target_recall is not None:
            target_recall = as_only_target(target_recall, nprobe, rerank, exact, stop)
            if self._model is not None:
                exact = self.expected(k, target_recall).effort is None
        if exact or self._model is None:
            if not self.is_trained:
                raise NotTrained("expected a trained index, got a new one; call train() first")
            k = check_k(k, len(self))
            threads = as_int(threads, "threads", 1, 1024)
            return self._by_all_rows(checked, k, threads)
        if not (type(k) is int and type(nprobe) in _COUNT and type(rerank) in _COUNT):
            k, nprobe, rerank = self._as_knobs(k, nprobe, rerank)  # True == 1, 5.0 == 5 as keys
        if stop is not None:
            stop = as_real(stop, "stop", 0.0, 1e6)
        plan = self._plans.get((k, nprobe, rerank, stop, target_recall)) or self._plan(
            k, nprobe, rerank, stop, target_recall
        )
        if type(threads) is not int or threads != 1:
            threads = as_int(threads, "threads", 1, 1024)
        if nprobe is None and len(checked) > 1 and self._prefers_all_rows(len(checked), plan):
            return self._by_all_rows(checked, k, threads)
        return self._by_lists(checked, k, plan, threads, None)

    def _by_lists(
        self, queries: F32, k: int, plan: SearchPlan, threads: int, scanned: I64 | None
    ) -> tuple[F32, I64]:
        """Scores and ids (nq, k); scanned (nq,) takes the codes looked at."""
        assert self._model is not None
        searcher = self._searcher or self._open_searcher()
        scores = np.empty((len(queries), k), np.float32)
        ids = np.empty((len(queries), k), np.int64)
        status = searcher.search(queries, k, plan, threads, scores, ids, None, scanned)
        while status < 0 and plan.nprobe < self.nlist:
            plan = choose_search(
                k=k, nprobe=plan.nprobe * 4, rerank=plan.rerank, **self._plan_facts(self._model)
            )
            short = np.flatnonzero(ids[:, -1] < 0)
            part = np.ascontiguousarray(queries[short])
            more_scores, more_ids = scores[short], ids[short]
            status = searcher.search(part, k, plan, threads, more_scores, more_ids)
            scores[short], ids[short] = more_scores, more_ids
        refuse_bad_query(status)
        return scores, ids

    def _by_all_rows(self, queries: F32, k: int, threads: int) -> tuple[F32, I64]:
        """Exact search; from bytes where there are some and that is sooner."""
        if self._model is None or not pays_exactly(len(self), self.d):
            return exact_search(self._rows, self.metric, queries, k, threads)
        if self._bytes is None:
            model = self._model
            self._bytes = ByteSearch([self._rows], model.scalar, model.mean, self.metric)
        compared = as_compared_queries(queries, self.metric)
        scores, rows = self._bytes.search(compared, k, threads=threads)
        return by_id(scores, self._rows.ids[rows])

    def _prefers_all_rows(self, nq: int, plan: SearchPlan) -> bool:
        """Whether a batch that leaves the effort to the index costs less without the lists."""
        assert self._model is not None
        return is_cheaper_by_bytes(
            nq,
            len(self),
            len(self),
            self.d,
            plan,
            nlist=self.nlist,
            copies=1 + self.spilled_share,
            sub_spaces=self._model.product.m,
        )

    def _as_knobs(
        self, k: object, nprobe: object, rerank: object
    ) -> tuple[int, int | None, int | None]:
        return (
            check_k(k, len(self)),
            None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
            None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
        )

    def _plan(
        self,
        k: int,
        nprobe: int | None,
        rerank: int | None,
        stop: float | None,
        target: float | None,
    ) -> SearchPlan:
        assert self._model is not None
        self._as_knobs(k, nprobe, rerank)
        key = (k, nprobe, rerank, stop, target)
        is_told = not (nprobe is None and rerank is None and stop is None)
        if not is_told and (target is not None or self._curves is not None):
            effort = self.expected(k, DEFAULT_TARGET if target is None else target).effort
            if effort is not None:
                nprobe, rerank, stop = effort.nprobe, effort.rerank, effort.stop
        plan = choose_search(
            k=k, nprobe=nprobe, rerank=rerank, stop=stop, **self._plan_facts(self._model)
        )
        if len(self._plans) > 256:
            self._plans, self._bound = {}, {}
        self._plans[key] = plan
        self._bound[key] = (self._searcher or self._open_searcher()).bind(k, plan)
        return plan

    # ------------------------------------------------------------------ recall as a promise

    @property
    def curves(self) -> Curves | None:
        """What tune() measured; None before, without partitions, and after too many changes."""
        return self._curves

    def tune(
        self, progress: Progress | None = None, *, queries: npt.ArrayLike | None = None
    ) -> Curves | None:
        """Measure what recall costs, for searches with a target_recall; saved with the index.

        queries  (m, d) like those that will be asked, of which the first 4,500 are; None: vectors
                 of the index stand for them

        Takes a second or two for 300,000 vectors. Returns None where every search is exact, and
        where there are too few vectors to ask about. Errors: InvalidArgument for an empty index, no
        query, or a bad one.
        """
        check_k(1, len(self))
        asked = None if queries is None else as_queries(queries, self.d)
        if asked is not None and not len(asked):
            raise InvalidArgument("expected at least one query to measure by, got none")
        if self._model is None or len(self) < LEAST:
            return None
        examined, ids, seed = _AsExamined(self, self._model), self._rows.ids, self.params.seed
        report: Report = progress or (lambda stage, share: None)
        curves = measure(examined, ids, self.metric, asked=asked, seed=seed, report=report)
        self._curves = counted(curves, examined, self._rows.form, self.metric, ids, seed)
        self._changes, self._plans, self._bound = 0, {}, {}
        return self._curves

    def expected(self, k: int = 10, target_recall: float = DEFAULT_TARGET) -> Expected:
        """The setting that a search with this target has, and the recall expected of it.

        Measures the curves where there are none yet. effort None: an exact search.
        """
        target = as_target(target_recall)
        curves = self._curves or self.tune()
        if curves is None:
            return Expected(None, target, 1.0, 1.0, 1.0, float(len(self)))
        return curves.choose(check_k(k, len(self)), target)

    def _plan_facts(self, model: Model) -> dict[str, Any]:
        spills = model.choice.soar_lambda > 0
        return {
            "n": len(self),
            "nlist": self.nlist,
            "ncell": model.choice.ncell,
            "collect_factor": self.params.overretrieve if spills else 1.0,
            "copies": 2 if spills else 1,
            "dims_per_block": model.choice.dims_per_block,
        }

    def _open_searcher(self) -> Searcher:
        assert self._model is not None
        assert self._lists is not None
        rows = self._rows
        arrays = bundle(self._model, self._lists, rows, rows.ids, self.metric)
        self._searcher = active.IvfSearcher(arrays)
        return self._searcher

    # ------------------------------------------------------------------ storage and health

    def save(self, path: str | os.PathLike[str]) -> None:
        """See Index.save."""
        parameters: dict[str, Any] = {
            "d": self.d,
            "metric": self.metric,
            "params": asdict(self.params),
            "is_exact": self._is_exact,
            "curves": None if self._curves is None else self._curves.to_json(),
            "changes": self._changes,
        }
        arrays = self._rows.arrays()
        if self._model is not None and self._lists is not None:
            learnt, packed = pack(self._model, self._lists)
            parameters |= learnt
            arrays |= packed
        write_arrays(path, self._KIND, parameters, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> SoarIndex:
        """See Index.load. Pages of the file are shared until the index changes."""
        parameters, arrays = read_arrays(path, cls._KIND, verify)
        try:
            index = cls(parameters["d"], parameters["metric"], **parameters["params"])
            index._is_exact = bool(parameters["is_exact"])
            if "choice" in parameters:
                index._model, index._lists, index._rows = unpack(
                    parameters, arrays, index.d, index.metric, index.params.precision
                )
            else:
                form = Form.of(index.params.precision, index.metric, None)
                index._rows = Rows.of(arrays, index.d, form=form)
            if parameters.get("curves") is not None:
                index._curves = Curves.of_json(parameters["curves"])
                index._changes = int(parameters["changes"])
        except (KeyError, TypeError, ValueError, OverflowError, CorruptStorage) as error:
            raise CorruptStorage(f"{path}: the contents are not a SOAR index's: {error}") from None
        return index

    def validate(self) -> None:
        """See Index.validate: lists and rows must match, both ways."""
        check_rows(self._rows, self.metric)
        if self._lists is None:
            return
        self._lists.validate(len(self), 2 if self.soar_lambda > 0 else 1)

    def memory(self) -> dict[str, int]:
        """Bytes by part. `vectors` are read only by the last step and by exact search; with the
        precision "int8" there are none.

        `lookup` finds ids and their lists; it is made at the first change after a build.
        """
        sizes = self._rows.memory()
        if self._model is None or self._lists is None:
            return {name: sizes[name] for name in ("vectors", "ids", "lookup")}
        homes = 0 if self._homes is None else self._homes.nbytes
        return {
            **self._lists.memory(),
            "lists": self._lists.start.nbytes + self._lists.count.nbytes,
            **self._model.memory(),
            "rerank_store": sizes["store"] + sizes["store_bias"],
            "vectors": sizes["vectors"],
            "ids": sizes["ids"],
            "lookup": sizes["lookup"] + homes,
        }


@dataclass(frozen=True, slots=True)
class _AsExamined:
    """An index as exam.py measures it; its rows are known by their ids."""

    index: SoarIndex
    model: Model

    @property
    def nlist(self) -> int:
        return self.index.nlist

    def usual(self, k: int) -> Effort:
        rerank = default_rerank(k, self.model.choice.dims_per_block)
        return Effort(self.index.default_nprobe, rerank)

    def drawn(self, rows: I64) -> F32:
        return self.index._rows.some(self.index._rows.find(rows))

    def exact(self, queries: F32, k: int, rows: I64 | None) -> tuple[F32, I64]:
        assert rows is None
        return self.index.search(queries, k, exact=True)

    def search(
        self, queries: F32, k: int, effort: Effort, allowed: U8 | None
    ) -> tuple[F32, I64, int]:
        assert allowed is None
        index = self.index
        plan = index._plan(k, effort.nprobe, effort.rerank, effort.stop, None)
        scanned = np.zeros(len(queries), np.int64)
        scores, ids = index._by_lists(queries, k, plan, 1, scanned)
        return scores, ids, int(scanned.sum())
