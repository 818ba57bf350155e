"""What training learns, and the coding of vectors with it.

    ivf.py, stored.py -> [model.py] -> upper.py, clustering.py, soar.py, quantization/

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
from soardb.index.plan import BuildParams, Choice
from soardb.index.upper import Upper, arrange_centroids
from soardb.kernels.dispatch import Assigning, active
from soardb.kernels.layout import BLOCK, F32, I32, U8, Metric
from soardb.metrics import unit_rows
from soardb.quantization.product import ProductQuantizer, anisotropic_eta
from soardb.quantization.scalar import ScalarQuantizer
from soardb.soar import nearest, spill

__all__ = ["Model", "as_compared", "store_stride"]

_BATCH = 65_536
_CODEBOOK_SAMPLE = 65_536


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
            "codebook": self.product.codebook.nbytes,
        }

    @classmethod
    def train(
        cls,
        vectors: F32,
        choice: Choice,
        params: BuildParams,
        metric: Metric,
        progress: Progress | None = None,
    ) -> Model:
        """Learn from checked (n, d) float32 vectors, as given by the caller, or a sample of them.

        params.seed decides what is drawn. Costs about iterations * n * nlist * d multiply-adds.
        """
        p, is_l2 = params, metric == "l2"
        rng = np.random.default_rng(p.seed)
        wanted = choice.nlist * p.points_per_centroid
        if wanted < len(vectors):
            vectors = vectors[np.sort(rng.choice(len(vectors), wanted, replace=False))]
        mean = np.zeros(vectors.shape[1], np.float32)
        if is_l2:
            mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample = as_compared(vectors, metric) - mean
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
            has_term=is_l2,
            iterations=p.iterations,
            seed=p.seed,
            threads=p.threads,
            progress=progress,
        )
        scalar = ScalarQuantizer.train(sample)
        model = cls(choice, mean, float(norms.mean()), places, centroids, product, scalar)
        if product.has_term:
            terms = _norm_terms(sample[few], residuals, product.encode(residuals), product)
            spread = terms.max() - terms.min()
            # Room for vectors and second copies that the sample has not shown.
            product.fit_term(np.array([terms.min() - spread / 4, terms.max() + spread / 4]))
        return model

    def encode(
        self, vectors: F32, params: BuildParams, progress: Progress | None = None
    ) -> tuple[I32, list[U8]]:
        """Where vectors (n, d) float32, as the metric compares them, stand and what stands there.

        Lists (n, 2) int32, -1 for no second one, and the (n, m) uint8 codes of each copy.
        """
        n, threads, spills = len(vectors), params.threads, self.choice.soar_lambda > 0
        parts = np.full((n, 2), -1, np.int32)
        codes = [np.empty((n, self.product.m), np.uint8) for _ in range(2 if spills else 1)]
        for first in range(0, n, _BATCH):
            if progress:
                progress("encode", first / n)
            batch = slice(first, min(first + _BATCH, n))
            centred = vectors[batch] - self.mean
            primary = nearest(centred, self._by_place, threads=threads)
            parts[batch, 0] = primary
            codes[0][batch] = self._code(centred, primary, params)
            if spills:
                second = spill(
                    centred,
                    self._by_centroid,
                    primary,
                    soar_lambda=self.choice.soar_lambda,
                    include_primary=params.include_primary,
                    threads=threads,
                )
                parts[batch, 1] = np.where(second == primary, -1, second)
                codes[1][batch] = self._code(centred, second, params)
        if progress:
            progress("encode", 1.0)
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
