"""What training learns, and the coding of vectors with it.

    ivf.py, stored.py -> [model.py] -> heldout.py, upper.py, clustering.py, soar.py, quantization/

A build, in order (SOAR: Sun et al., NeurIPS 2023; AVQ: Guo et al., ICML 2020):
  1. k-means on a sample gives the partitions; AVQ may move their centroids afterwards.
  2. Each vector goes to its nearest partition, and to a second one by the SOAR score, computed
     against the moved centroids.
  3. Both residuals are coded by one product quantizer, trained on primary residuals.

All three metrics come down to inner products. cosine: unit vectors. dot: as given. l2: vectors are
centred by the training mean, -|q - x|^2 / 2 = <q, x> - |x|^2 / 2 - |q|^2 / 2, and the norm term
rides in two more sub-spaces of the code; SOAR's argument holds with q - x in the place of q, since
a list is missed where <q - x, r> is large.

Nothing here knows about ids, rows or files, and a model never changes: arrays in, arrays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from soardb.clustering import Progress, avq_centroids, kmeans
from soardb.index.heldout import held_out
from soardb.index.plan import BuildParams, Choice
from soardb.index.upper import Upper, arrange_centroids
from soardb.kernels.dispatch import Assigning, active
from soardb.kernels.layout import BLOCK, F32, I32, I64, U8, Metric
from soardb.metrics import unit_rows
from soardb.quantization.product import ProductQuantizer, anisotropic_eta
from soardb.quantization.scalar import ScalarQuantizer
from soardb.soar import nearest, spill

__all__ = ["Copies", "Model", "as_compared", "learnt", "store_stride"]

_BATCH = 16_384
_CODEBOOK_SAMPLE = 32_768
_FEW = 2_000  # vectors, below which an index is exact unless it is told its lists


@dataclass(frozen=True, slots=True)
class Copies:
    """What n vectors add to the lists, in order of vector: one entry a copy.

    lists (p,) int32; owners (p,) int64, which of the vectors; codes (p, m) uint8.
    """

    lists: I32
    owners: I64
    codes: U8


@dataclass(frozen=True)
class Model:
    """What training learnt; never changes afterwards.

    places (nlist, d): centroids that decide the primary partition; centroids (nlist, d): the ones
    that are scored and coded against (the same array unless AVQ moved them). What follows from
    these fields and costs more than a use of it is made when it is first needed, and kept.
    """

    choice: Choice
    mean: F32
    typical_norm: float
    places: F32
    centroids: F32
    product: ProductQuantizer
    scalar: ScalarQuantizer

    @cached_property
    def upper(self) -> Upper:
        """The centroids as a search reads them."""
        return arrange_centroids(self.centroids, self.choice.ncell, self.product.has_term)

    @cached_property
    def rotation(self) -> tuple[U8, F32]:
        """The rotation of the codes as kernels read it, of no rows where there is none."""
        if self.product.rotation is None:
            return np.empty((0, 0, BLOCK, 4), np.uint8), np.empty(0, np.float32)
        return self.product.rotation.packed()

    @cached_property
    def _by_place(self) -> Assigning:
        return active.Assigner(self.places)

    @cached_property
    def _by_centroid(self) -> Assigning:
        return self._by_place if self.centroids is self.places else active.Assigner(self.centroids)

    def memory(self) -> dict[str, int]:
        """Bytes of the codebook, and of the centroids in every form that was made so far."""
        nlist, d = self.centroids.shape
        packed = [vars(self).get("_by_place"), vars(self).get("_by_centroid")]
        forms = {id(form) for form in (self.places, self.centroids, *packed) if form is not None}
        in_bytes = -(-nlist // BLOCK) * BLOCK * (d + 8)
        return {
            "centroids": len(forms) * self.places.nbytes + in_bytes,
            "codebook": self.product.codebook.nbytes + sum(part.nbytes for part in self.rotation),
        }

    @classmethod
    def train(
        cls,
        vectors: F32,
        choice: Choice,
        params: BuildParams,
        metric: Metric,
        progress: Progress | None = None,
        *,
        places: F32 | None = None,
    ) -> Model:
        """Learn from checked (n, d) float32 vectors, as given by the caller, or a sample of them.

        params.seed decides what is drawn. places: centroids (nlist, d) that k-means found elsewhere
        of vectors as the metric compares them; the rest is learnt here. Costs about iterations *
        n * nlist * d multiply-adds, and with places a product of (n, d) x (d, nlist).
        """
        p, is_l2 = params, metric == "l2"
        rng = np.random.default_rng(p.seed)
        sample = _draw(vectors, choice.nlist * p.points_per_centroid, metric, rng)
        mean = np.zeros(vectors.shape[1], np.float32)
        if is_l2:
            mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
            sample -= mean
        if places is not None:
            places = places - mean
        else:
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
            centroids = avq_centroids(sample, primary, places, choice.avq_eta, p.threads)
        few = rng.choice(len(sample), min(len(sample), _CODEBOOK_SAMPLE), replace=False)
        few.sort()
        residuals = sample[few] - centroids[primary[few]]
        product = ProductQuantizer.train(
            residuals,
            choice.dims_per_block,
            has_term=is_l2,
            rotate=p.rotate,
            iterations=p.iterations,
            seed=p.seed,
            threads=p.threads,
            progress=progress,
        )
        scalar = ScalarQuantizer.train(sample)
        model = cls(choice, mean, _mean_norm(sample), places, centroids, product, scalar)
        if product.has_term:
            terms = _norm_terms(sample[few], residuals, product.encode(residuals), product)
            spread = terms.max() - terms.min()
            # Room for vectors and second copies that the sample has not shown.
            product.fit_term(np.array([terms.min() - spread / 4, terms.max() + spread / 4]))
        return model

    def assign(self, vectors: F32, params: BuildParams) -> I32:
        """The lists of (n, d) float32 vectors, as the metric compares them: (n, 2) int32.

        The second column is -1 where a vector stands in one list alone. Costs one (n, d) x (d,
        nlist) product, and two more where vectors are spilled.
        """
        parts = np.full((len(vectors), 2), -1, np.int32)
        centred = vectors - self.mean
        primary = nearest(centred, self._by_place, threads=params.threads)
        parts[:, 0] = primary
        if self.choice.soar_lambda > 0:
            second = spill(
                centred,
                self._by_centroid,
                primary,
                soar_lambda=self.choice.soar_lambda,
                include_primary=params.include_primary,
                threads=params.threads,
            )
            parts[:, 1] = np.where(second == primary, -1, second)
        return parts

    def code(self, vectors: F32, parts: I32, params: BuildParams) -> Copies:
        """The codes of (n, d) vectors in the lists (n, 2) that assign() gave them."""
        owners, copies = np.nonzero(parts >= 0)  # in order of vector, the primary copy first
        is_spilled = parts[:, 1] >= 0
        codes = np.empty((len(owners), self.product.m), np.uint8)
        centred = vectors - self.mean
        codes[copies == 0] = self._code(centred, parts[:, 0], params)
        if is_spilled.any():
            codes[copies == 1] = self._code(centred[is_spilled], parts[is_spilled, 1], params)
        return Copies(parts[owners, copies], owners, codes)

    def encode(self, vectors: F32, params: BuildParams) -> tuple[I32, list[U8]]:
        """assign() and code() of a few vectors: lists (n, 2), and the codes of each copy.

        Codes are (n, m) uint8, one array a copy; of a second copy that there is not, they are 0.
        """
        parts = self.assign(vectors, params)
        centred = vectors - self.mean
        codes = [self._code(centred, parts[:, 0], params)]
        if self.choice.soar_lambda > 0:
            is_spilled = parts[:, 1] >= 0
            second = np.zeros_like(codes[0])
            second[is_spilled] = self._code(centred[is_spilled], parts[is_spilled, 1], params)
            codes.append(second)
        return parts, codes

    def _code(self, centred: F32, parts: I32, params: BuildParams) -> U8:
        residuals = centred - self.centroids[parts]
        product, threads = self.product, params.threads
        if product.has_term:
            codes = product.encode(residuals, threads=threads)
            terms = _norm_terms(centred, residuals, codes, product)
            return np.concatenate([codes, product.encode_term(terms)], axis=1)
        norms = np.linalg.norm(centred, axis=1).astype(np.float32)
        directions: F32 = centred / np.where(norms > 0, norms, 1).astype(np.float32)[:, None]
        d, threshold = len(self.mean), params.anisotropic_threshold
        eta = anisotropic_eta(norms, d, threshold, self.typical_norm)
        return product.encode(residuals, directions, eta, threads)


def _draw(vectors: F32, wanted: int, metric: Metric, rng: np.random.Generator) -> F32:
    """A sample of (n, d) vectors as the metric compares them, the one copy that training makes.

    Where there are fewer than are wanted, those that are held out to measure by are left out.
    """
    n, d = vectors.shape
    rows = None
    if wanted < n:
        rows = np.sort(rng.choice(n, wanted, replace=False))
    elif wanted > n:
        rows = learnt(vectors, metric)
    sample = np.empty((n if rows is None else len(rows), d), np.float32)
    for first in range(0, len(sample), _BATCH):
        part = slice(first, min(first + _BATCH, len(sample)))
        sample[part] = as_compared(vectors[part if rows is None else rows[part]], metric)
    return sample


def learnt(vectors: F32, metric: Metric) -> I64 | None:
    """Rows (m,) of the vectors that are not held out of a training by all; None for all of them.

    That is where many are equal, so that more than a quarter would be left out, and where there are
    so few that each is needed to know the range of values.
    """
    n = len(vectors)
    if n < _FEW:
        return None
    parts = (vectors[first : first + _BATCH] for first in range(0, n, _BATCH))
    rows = np.flatnonzero(~np.concatenate([held_out(as_compared(p, metric)) for p in parts]))
    return rows if 4 * len(rows) >= 3 * n else None


def _mean_norm(vectors: F32) -> float:
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return float(np.sqrt(squares).mean(dtype=np.float64))


def as_compared(vectors: F32, metric: Metric) -> F32:
    """(n, d) vectors as the metric compares them: of unit length under cosine, else as given."""
    return unit_rows(vectors) if metric == "cosine" else vectors


def store_stride(d: int) -> int:
    """Bytes of an 8-bit row: whole cache lines where that costs under a third more."""
    lines = -(-d // 64) * 64
    return lines if lines <= 1.3 * d else -(-d // 16) * 16


def _norm_terms(centred: F32, residuals: F32, codes: U8, product: ProductQuantizer) -> F32:
    """What l2's last two sub-spaces hold: (n,) float32.

    With x~ the reconstruction of x, the estimate <q, x~> + term - (|c|^2 / 2, which the centroid's
    score holds) equals <q, x> - |x|^2 / 2 up to <q - x, x - x~>: exact where q is x.
    """
    error = residuals - product.decode(codes)
    centroids = centred - residuals
    terms: F32 = (
        np.einsum("ij,ij->i", centred, error)
        - 0.5 * np.einsum("ij,ij->i", centred, centred)
        + 0.5 * np.einsum("ij,ij->i", centroids, centroids)
    ).astype(np.float32)
    return terms
