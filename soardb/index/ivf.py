"""SoarIndex: spilled IVF with 4-bit anisotropic codes, 8-bit re-ranking and exact scores.

    base.py <- [ivf.py] -> clustering.py, soar.py, quantization/, lists.py, rows.py, plan.py,
                           kernels

A build, in order (SOAR: Sun et al., NeurIPS 2023; AVQ: Guo et al., ICML 2020):
  1. k-means on a sample gives the partitions; AVQ may move their centroids afterwards.
  2. Each vector goes to its nearest partition, and to a second one by the SOAR score, computed
     against the moved centroids.
  3. Both residuals are coded by one product quantizer, trained on primary residuals.
A search ranks the centroids, scans the codes of the best lists by table look-ups, joins the two
copies of a vector, re-ranks in 8 bits and then in float32: one native call (kernels.IvfSearcher).

All three metrics come down to inner products. cosine: unit vectors. dot: as given. l2: vectors are
centred by the training mean, -|q - x|^2 / 2 = <q, x> - |x|^2 / 2 - |q|^2 / 2, and the norm term
rides in two more sub-spaces of the code; SOAR's argument holds with q - x in the place of q, since
a list is missed where <q - x, r> is large.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Never, Unpack

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_dim, as_ids, as_int, as_queries, as_vectors
from soardb.clustering import Progress, avq_centroids, kmeans
from soardb.errors import CorruptStorage, InvalidArgument, NotTrained
from soardb.index.base import SEARCH_KEYWORDS, Index, refuse_bad_query
from soardb.index.flat import check_k, check_rows, exact_search
from soardb.index.lists import CodeLists
from soardb.index.plan import (
    BuildOptions,
    BuildParams,
    Choice,
    choose_build,
    choose_search,
    default_nprobe,
    reject_unknown,
)
from soardb.index.rows import Rows, expect_array
from soardb.kernels.dispatch import Searcher, active
from soardb.kernels.layout import (
    BLOCK,
    F32,
    I32,
    I64,
    LINE,
    U8,
    IvfArrays,
    Metric,
    SearchPlan,
)
from soardb.metrics import as_metric, unit_rows
from soardb.quantization.product import ProductQuantizer, anisotropic_eta
from soardb.quantization.scalar import ScalarQuantizer
from soardb.soar import nearest, spill
from soardb.storage.format import read_arrays, write_arrays

__all__ = ["SoarIndex"]

_BATCH = 65_536
_CODEBOOK_SAMPLE = 65_536
_KNOB = (int, type(None))


@dataclass(frozen=True, slots=True)
class _Model:
    """What training learnt; never changes afterwards.

    places (nlist, d): centroids that decide the primary partition; centroids (nlist, d): the ones
    that are scored and coded against (the same array unless AVQ moved them).
    """

    choice: Choice
    mean: F32
    typical_norm: float
    places: F32
    centroids: F32
    product: ProductQuantizer
    scalar: ScalarQuantizer


class SoarIndex(Index):
    """Approximate nearest neighbours by spilled partitions.

        index = SoarIndex(d=100, metric="cosine")
        index.train(vectors)
        index.add(vectors, ids)
        scores, ids = index.search(queries, k=10, nprobe=40, rerank=150)

    Keyword options are BuildParams'; whatever is left out is chosen by train() from n, d and
    metric. A collection trained on few vectors stays exact (nlist 0).
    """

    _KIND = "soar-index"

    def __init__(self, d: int, metric: str = "cosine", **options: Unpack[BuildOptions]) -> None:
        self.d = as_dim(d)
        self.metric: Metric = as_metric(metric)
        self.params = BuildParams.of(dict(options), self.metric)
        self._model: _Model | None = None
        self._is_exact = False
        self._lists: CodeLists | None = None
        self._rows = Rows(self.d)
        self._homes: I32 | None = None
        self._searcher: Searcher | None = None
        self._plans: dict[tuple[int, int | None, int | None], SearchPlan] = {}

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
        return {"d": self.d, "metric": self.metric} | asdict(self.params) | chosen | sub_spaces

    def __len__(self) -> int:
        return len(self._rows)

    # ------------------------------------------------------------------ building

    def train(self, vectors: npt.ArrayLike, progress: Progress | None = None) -> None:
        """Learn partitions and codebooks from (n, d) vectors; see Index.train.

        Costs about iterations * n * nlist * d multiply-adds, n being at most
        nlist * points_per_centroid.
        """
        if len(self):
            raise InvalidArgument(
                f"expected an empty index to train, got one with {len(self)} vectors; "
                "make a new one and add to it"
            )
        checked = as_vectors(vectors, self.d, self.metric)
        if not len(checked):
            raise InvalidArgument("expected at least one training vector, got none")
        choice = choose_build(self.params, len(checked), self.d, self.metric)
        if choice.nlist == 0:
            self._model, self._lists, self._is_exact = None, None, True
            self._rows = Rows(self.d)
            return
        self._model = self._learn(checked, choice, progress)
        self._is_exact = False
        self._lists = CodeLists(self.nlist, self._model.product.m)
        self._rows = Rows(self.d, _stride(self.d), self.metric == "l2")
        self._homes, self._searcher, self._plans = None, None, {}

    def _learn(self, vectors: F32, choice: Choice, progress: Progress | None) -> _Model:
        p = self.params
        rng = np.random.default_rng(p.seed)
        wanted = choice.nlist * p.points_per_centroid
        if wanted < len(vectors):
            vectors = vectors[np.sort(rng.choice(len(vectors), wanted, replace=False))]
        mean = np.zeros(self.d, np.float32)
        if self.metric == "l2":
            mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample = self._normalise(vectors) - mean
        places = kmeans(
            sample,
            choice.nlist,
            seed=p.seed,
            iterations=p.iterations,
            init=p.init,
            spherical=p.spherical,
            points_per_centroid=p.points_per_centroid,
            threads=p.threads,
            progress=progress,
        )
        primary = nearest(sample, places, threads=p.threads)
        centroids = places
        if choice.avq_eta:
            centroids = avq_centroids(sample, primary, places, choice.avq_eta)
        norms = np.linalg.norm(sample, axis=1)
        few = rng.choice(len(sample), min(len(sample), _CODEBOOK_SAMPLE), replace=False)
        few.sort()
        residuals = sample[few] - centroids[primary[few]]
        product = ProductQuantizer.train(
            residuals,
            choice.dims_per_block,
            has_term=self.metric == "l2",
            iterations=p.iterations,
            seed=p.seed,
            threads=p.threads,
            progress=progress,
        )
        scalar = ScalarQuantizer.train(sample)
        model = _Model(choice, mean, float(norms.mean()), places, centroids, product, scalar)
        if product.has_term:
            terms = _norm_terms(sample[few], residuals, product.encode(residuals), model)
            spread = terms.max() - terms.min()
            # Room for vectors and second copies that the sample has not shown.
            product.fit_term(np.array([terms.min() - spread / 4, terms.max() + spread / 4]))
        return model

    def _normalise(self, vectors: F32) -> F32:
        return unit_rows(vectors) if self.metric == "cosine" else vectors

    def add(
        self,
        vectors: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See Index.add. Costs one or two (n, d) x (d, nlist) products and the encoding."""
        if not self.is_trained:
            raise NotTrained("expected a trained index, got a new one; call train() first")
        checked = as_vectors(vectors, self.d, self.metric)
        new = self._rows.new_ids(None if ids is None else as_ids(ids, len(checked)), len(checked))
        if not len(checked):
            return
        compared = self._normalise(checked)
        if self._model is None or self._lists is None:
            self._rows.append(compared, new)
            return
        parts, codes = self._encode(compared, self._model, progress)
        if not len(self):
            # Rows in list order: candidates of one list then lie together in memory.
            order = np.argsort(parts[:, 0], kind="stable")
            compared, new, parts = compared[order], new[order], parts[order]
            codes = [copy[order] for copy in codes]
        centred = compared - self._model.mean
        bias = 0.5 * np.square(centred).sum(axis=1) if self.metric == "l2" else None
        store = self._model.scalar.encode(centred, _stride(self.d))
        rows = self._rows.append(compared, new, store, bias).astype(np.uint32)
        is_spilled = parts[:, 1] >= 0
        self._lists.append(
            np.concatenate([parts[:, 0], parts[is_spilled, 1]]),
            np.concatenate([rows, rows[is_spilled]]),
            np.concatenate([codes[0], codes[1][is_spilled]]) if len(codes) > 1 else codes[0],
        )
        if self._homes is not None:
            self._homes = np.concatenate([self._homes, parts])
        self._searcher = None
        self._plans = {}

    def _encode(
        self, vectors: F32, model: _Model, progress: Progress | None
    ) -> tuple[I32, list[U8]]:
        """Lists (n, 2) int32, -1 for no second one, and the (n, m) codes of each copy."""
        n, threads, spills = len(vectors), self.params.threads, model.choice.soar_lambda > 0
        parts = np.full((n, 2), -1, np.int32)
        codes = [np.empty((n, model.product.m), np.uint8) for _ in range(2 if spills else 1)]
        for first in range(0, n, _BATCH):
            if progress:
                progress("encode", first / n)
            batch = slice(first, min(first + _BATCH, n))
            centred = vectors[batch] - model.mean
            primary = nearest(centred, model.places, threads=threads)
            parts[batch, 0] = primary
            codes[0][batch] = self._code(centred, primary, model)
            if spills:
                second = spill(
                    centred,
                    model.centroids,
                    primary,
                    soar_lambda=model.choice.soar_lambda,
                    include_primary=self.params.include_primary,
                    threads=threads,
                )
                parts[batch, 1] = np.where(second == primary, -1, second)
                codes[1][batch] = self._code(centred, second, model)
        if progress:
            progress("encode", 1.0)
        return parts, codes

    def _code(self, centred: F32, parts: I32, model: _Model) -> U8:
        residuals = centred - model.centroids[parts]
        product, threads = model.product, self.params.threads
        if product.has_term:
            codes = product.encode(residuals, threads=threads)
            terms = _norm_terms(centred, residuals, codes, model)
            return np.concatenate([codes, product.encode_term(terms)], axis=1)
        norms = np.linalg.norm(centred, axis=1).astype(np.float32)
        directions: F32 = centred / np.where(norms > 0, norms, 1).astype(np.float32)[:, None]
        eta = anisotropic_eta(norms, self.d, self.params.anisotropic_threshold, model.typical_norm)
        return product.encode(residuals, directions, eta, threads)

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
        self._searcher = None
        self._plans = {}
        return len(gone)

    # ------------------------------------------------------------------ searching

    def search(
        self,
        queries: npt.ArrayLike,
        k: int = 10,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        exact: bool = False,
        threads: int = 1,
        **unknown: Never,
    ) -> tuple[F32, I64]:
        """See Index.search. Where the visited lists hold fewer than k vectors, more are visited."""
        if unknown:
            reject_unknown(unknown, SEARCH_KEYWORDS)
        checked = as_queries(queries, self.d)
        if exact or self._model is None:
            if not self.is_trained:
                raise NotTrained("expected a trained index, got a new one; call train() first")
            k = check_k(k, len(self))
            threads = as_int(threads, "threads", 1, 1024)
            return exact_search(self._rows, self.metric, checked, k, threads)
        if not (type(k) is int and type(nprobe) in _KNOB and type(rerank) in _KNOB):
            k, nprobe, rerank = self._as_knobs(k, nprobe, rerank)  # True == 1, 5.0 == 5 as keys
        plan = self._plans.get((k, nprobe, rerank)) or self._plan(k, nprobe, rerank)
        if type(threads) is not int or threads != 1:
            threads = as_int(threads, "threads", 1, 1024)
        searcher = self._searcher or self._open_searcher()
        scores = np.empty((len(checked), k), np.float32)
        ids = np.empty((len(checked), k), np.int64)
        status = searcher.search(checked, k, plan, threads, scores, ids)
        while status < 0 and plan.nprobe < self.nlist:
            plan = choose_search(
                k=k, nprobe=plan.nprobe * 4, rerank=rerank, **self._plan_facts(self._model)
            )
            status = searcher.search(checked, k, plan, threads, scores, ids)
        refuse_bad_query(status)
        return scores, ids

    def _as_knobs(
        self, k: object, nprobe: object, rerank: object
    ) -> tuple[int, int | None, int | None]:
        return (
            check_k(k, len(self)),
            None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
            None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
        )

    def _plan(self, k: int, nprobe: int | None, rerank: int | None) -> SearchPlan:
        assert self._model is not None
        self._as_knobs(k, nprobe, rerank)
        plan = choose_search(k=k, nprobe=nprobe, rerank=rerank, **self._plan_facts(self._model))
        if len(self._plans) > 256:
            self._plans = {}
        self._plans[k, nprobe, rerank] = plan
        return plan

    def _plan_facts(self, model: _Model) -> dict[str, Any]:
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
        model, lists, rows = self._model, self._lists, self._rows
        upper = _arrange_centroids(model, self.metric)
        arrays = IvfArrays(
            metric=self.metric,
            vectors=rows.vectors,
            ids=rows.ids,
            mean=model.mean,
            centroids=model.centroids,
            centroid_scale=upper.scalar.scale,
            centroid_offset=upper.scalar.offset,
            centroid_bias=upper.centroid_bias,
            centroid_codes=upper.centroid_codes,
            slot_list=upper.slot_list,
            cell_codes=upper.cell_codes,
            cell_bias=upper.cell_bias,
            cell_start=upper.cell_start,
            list_start=lists.start,
            list_count=lists.count,
            codes=lists.codes,
            code_rows=lists.rows,
            codebook=model.product.codebook,
            block_dims=model.product.block_dims,
            store=rows.store,
            store_scale=model.scalar.scale,
            store_offset=model.scalar.offset,
            store_bias=rows.store_bias,
            is_spilled=model.choice.soar_lambda > 0,
        )
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
        }
        arrays = self._rows.arrays()
        if self._model is not None and self._lists is not None:
            model = self._model
            start, count, codes, code_rows = self._lists.packed()
            parameters |= {
                "choice": asdict(model.choice),
                "typical_norm": model.typical_norm,
            }
            arrays |= {
                "mean": model.mean,
                "places": model.places,
                "codebook": model.product.codebook,
                "block_dims": model.product.block_dims,
                "store_offset": model.scalar.offset,
                "store_scale": model.scalar.scale,
                "list_start": start,
                "list_count": count,
                "codes": codes,
                "code_rows": code_rows,
            }
            if model.centroids is not model.places:
                arrays["centroids"] = model.centroids
        write_arrays(path, self._KIND, parameters, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SoarIndex:
        """See Index.load. Pages of the file are shared until the index changes."""
        parameters, arrays = read_arrays(path, cls._KIND)
        try:
            index = cls(parameters["d"], parameters["metric"], **parameters["params"])
            index._is_exact = bool(parameters["is_exact"])
            if "choice" not in parameters:
                index._rows = Rows.of(arrays, index.d)
            else:
                _check_arrays(arrays, index.d, index.metric)
                index._rows = Rows.of(arrays, index.d, _stride(index.d), index.metric == "l2")
                index._model = _Model(
                    _as_choice(parameters["choice"], index.metric),
                    arrays["mean"],
                    float(parameters["typical_norm"]),
                    arrays["places"],
                    arrays.get("centroids", arrays["places"]),
                    ProductQuantizer(
                        arrays["codebook"],
                        arrays["block_dims"],
                        index.d,
                        index.metric == "l2",
                    ),
                    ScalarQuantizer(arrays["store_offset"], arrays["store_scale"]),
                )
                index._lists = CodeLists.of(
                    arrays["list_start"],
                    arrays["list_count"],
                    arrays["codes"],
                    arrays["code_rows"],
                    len(index),
                )
                most = 2 if index.soar_lambda > 0 else 1
                if not len(index) <= len(index._lists) <= most * len(index):
                    raise CorruptStorage(
                        f"expected 1..{most} codes a vector, got {len(index._lists)} of "
                        f"{len(index)} vectors"
                    )
        except (KeyError, TypeError, ValueError, OverflowError, CorruptStorage) as error:
            raise CorruptStorage(f"{path}: the contents are not a SOAR index's: {error}") from None
        return index

    def validate(self) -> None:
        """See Index.validate: lists and rows must match, both ways."""
        check_rows(self._rows, self.metric)
        if self._lists is None:
            return
        n, lists = len(self), self._lists
        parts = [lists.list_rows(part) for part in range(self.nlist)]
        held = np.concatenate(parts) if parts else np.empty(0, np.uint32)
        if (held >= n).any():
            raise CorruptStorage(f"a list holds row {held.max()}, the index has {n}")
        copies = np.bincount(held, minlength=n)
        most = 2 if self.soar_lambda > 0 else 1
        if n and (copies.min() < 1 or copies.max() > most):
            row = int(((copies < 1) | (copies > most)).argmax())
            raise CorruptStorage(f"row {row} stands in {copies[row]} lists, expected 1..{most}")
        for part, rows in enumerate(parts):
            if len(np.unique(rows)) != len(rows):
                raise CorruptStorage(f"list {part} holds a row twice")

    def memory(self) -> dict[str, int]:
        """Bytes by part. `vectors` are read only by the last step and by exact search.

        `lookup` finds ids and their lists; it is made at the first change after a build.
        """
        sizes = self._rows.memory()
        if self._model is None or self._lists is None:
            return {name: sizes[name] for name in ("vectors", "ids", "lookup")}
        model, homes = self._model, 0 if self._homes is None else self._homes.nbytes
        centroids = model.places.nbytes * (1 if model.centroids is model.places else 2)
        return {
            **self._lists.memory(),
            "lists": self._lists.start.nbytes + self._lists.count.nbytes,
            "centroids": centroids + -(-self.nlist // BLOCK) * BLOCK * (self.d + 8),
            "codebook": model.product.codebook.nbytes,
            "rerank_store": sizes["store"] + sizes["store_bias"],
            "vectors": sizes["vectors"],
            "ids": sizes["ids"],
            "lookup": sizes["lookup"] + homes,
        }


def _as_choice(given: dict[str, Any], metric: Metric) -> Choice:
    """The choice that a file holds, checked like parameters of a caller."""
    choice = Choice(**given)
    BuildParams.of(asdict(choice), metric)
    if None in asdict(choice).values():
        raise CorruptStorage(f"expected a choice of every parameter, got {given}")
    return choice


def _check_arrays(arrays: dict[str, np.ndarray], d: int, metric: Metric) -> None:
    """CorruptStorage unless what training learnt has the shapes and values that a search trusts.

    Checksums find damage; this finds a file that was made wrong. Costs O(nlist * d); rows and lists
    check themselves.
    """
    codebook, nlist, nblock = arrays["codebook"], len(arrays["list_start"]), len(arrays["codes"])
    m = len(codebook)
    width = codebook.size // max(16 * m, 1)
    learnt: dict[str, tuple[int, ...]] = {
        "mean": (d,),
        "places": (nlist, d),
        "store_offset": (d,),
        "store_scale": (d,),
        "codebook": (m, width, 16),
    }
    if "centroids" in arrays:
        learnt["centroids"] = (nlist, d)
    for name, shape in learnt.items():
        expect_array(arrays, name, np.float32, shape)
        if not np.isfinite(arrays[name]).all():
            raise CorruptStorage(f"expected finite values in array {name!r}, got others")
    expect_array(arrays, "list_start", np.int64, (nlist,))
    expect_array(arrays, "list_count", np.int32, (nlist,))
    expect_array(arrays, "codes", np.uint8, (nblock, m // 8, LINE))
    expect_array(arrays, "code_rows", np.uint32, (nblock * BLOCK,))
    expect_array(arrays, "block_dims", np.int32, (m + 1,))
    dims = arrays["block_dims"].astype(np.int64)
    ends = [d, d + 1, d + 2] if metric == "l2" else [d]
    if (
        nlist == 0
        or m == 0
        or m % 8
        or dims[0] != 0
        or dims[-len(ends) :].tolist() != ends
        or (np.diff(dims) < 0).any()
        or (np.diff(dims) > width).any()
    ):
        raise CorruptStorage(f"expected sub-spaces that cover {d} dimensions once, got {dims}")


def _stride(d: int) -> int:
    """Bytes of an 8-bit row: whole cache lines where that costs under a third more."""
    lines = -(-d // 64) * 64
    return lines if lines <= 1.3 * d else -(-d // 16) * 16


def _norm_terms(centred: F32, residuals: F32, codes: U8, model: _Model) -> F32:
    """What l2's last two sub-spaces hold: (n,) float32.

    With x~ the reconstruction of x, the estimate <q, x~> + term - (|c|^2 / 2, which the centroid's
    score holds) equals <q, x> - |x|^2 / 2 up to <q - x, x - x~>: exact where q is x.
    """
    error = residuals - model.product.decode(codes)
    centroids = centred - residuals
    terms: F32 = (
        np.einsum("ij,ij->i", centred, error)
        - 0.5 * np.einsum("ij,ij->i", centred, centred)
        + 0.5 * np.einsum("ij,ij->i", centroids, centroids)
    ).astype(np.float32)
    return terms


@dataclass(frozen=True, slots=True)
class _Upper:
    """Centroids as a search reads them; fields as in IvfArrays."""

    scalar: ScalarQuantizer
    centroid_codes: U8
    centroid_bias: F32
    slot_list: I32
    cell_codes: U8
    cell_bias: F32
    cell_start: I32


def _arrange_centroids(model: _Model, metric: Metric) -> _Upper:
    centroids = model.centroids
    nlist, d = centroids.shape
    ncell = min(model.choice.ncell, nlist)  # k-means may have dropped lists
    scalar = ScalarQuantizer.train(centroids)
    norms = 0.5 * np.square(centroids).sum(axis=1)
    bias = -norms if metric == "l2" else np.zeros(nlist, np.float32)
    if ncell < 2:
        return _Upper(
            scalar,
            active.pack_u8_blocks(scalar.encode(centroids)),
            _padded(bias, -np.inf),
            _padded(np.arange(nlist, dtype=np.int32), -1),
            np.empty((0, -(-d // 4), BLOCK, 4), np.uint8),
            np.empty(0, np.float32),
            np.empty(0, np.int32),
        )
    cells = kmeans(centroids, ncell, seed=0, points_per_centroid=nlist)
    home = nearest(centroids, cells)
    members = [np.flatnonzero(home == cell).astype(np.int32) for cell in range(len(cells))]
    slots = np.concatenate([_padded(lists, -1) for lists in members])
    is_real = slots >= 0
    slot_bias = np.full(len(slots), -np.inf, np.float32)
    slot_bias[is_real] = bias[slots[is_real]]
    codes = np.full((len(slots), d), 128, np.uint8)
    codes[is_real] = scalar.encode(centroids[slots[is_real]])
    blocks = [-(-len(lists) // BLOCK) for lists in members]
    cell_norms = 0.5 * np.square(cells).sum(axis=1)
    cell_bias = -cell_norms if metric == "l2" else np.zeros(len(cells), np.float32)
    return _Upper(
        scalar,
        active.pack_u8_blocks(codes),
        slot_bias,
        slots,
        active.pack_u8_blocks(scalar.encode(cells)),
        _padded(cell_bias, -np.inf),
        np.concatenate([[0], np.cumsum(blocks)]).astype(np.int32),
    )


def _padded(values: np.ndarray, fill: float) -> Any:
    """Values followed by `fill` up to a multiple of the block, same dtype."""
    out = np.full(-(-len(values) // BLOCK) * BLOCK, fill, values.dtype)
    out[: len(values)] = values
    return out
