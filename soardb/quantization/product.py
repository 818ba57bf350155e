"""4-bit product quantization with anisotropic (noise-shaped) encoding.

    index/model.py -> [product.py] -> rotation.py, kernels (encode)

The d dimensions, turned first where that leaves less error, are divided as evenly as possible over
m sub-spaces, m a multiple of 8, with 16 centres each, trained by k-means on primary residuals.
Under l2 two more sub-spaces hold a number instead of dimensions (a coarse and a fine level): what
has to be added to a vector's estimate so that it is exact where the query is the vector itself. See
docs/decisions/002-l2-by-norm-blocks.md.

AVQ (Guo et al., ICML 2020) section 3: `anisotropic_eta` and the coordinate descent in the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soardb.clustering import Progress
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I32, U8
from soardb.quantization.rotation import Rotation

__all__ = ["ProductQuantizer", "anisotropic_eta", "block_count"]

_CENTRES = 16
_TERM_BLOCKS = 2
_MAX_SHARE = 0.25
_DECODE_BATCH = 256  # of which the places of the values fit a cache
_TRIAL = 8_192  # residuals that a rotation is tried on
_TRIAL_ITERATIONS = 4
_WORTH_TURNING = 0.85  # of the error without: what is left must pay for turning each query


def block_count(d: int, dims_per_block: int, has_term: bool) -> int:
    """Sub-spaces that hold dimensions, so that all of them together are a multiple of 8."""
    extra = _TERM_BLOCKS if has_term else 0
    return -(-(-(-d // dims_per_block) + extra) // 8) * 8 - extra


def anisotropic_eta(norms: F32, d: int, threshold: float, typical_norm: float) -> F32:
    """Weight of parallel against orthogonal error: (n,) float32, at least 1.

    norms (n,); threshold is a share of typical_norm (1 for unit vectors): the inner product above
    which errors matter. (d - 1) t / (1 - t) with t = (threshold / norm)^2, at most 1/4: a vector so
    short never comes near the threshold. AVQ, theorem 3.4 in its limit form; threshold 0 gives 1.
    """
    least = threshold * typical_norm / _MAX_SHARE**0.5  # the norm at which the share is capped
    share = _MAX_SHARE * np.square(least / np.maximum(norms, np.float32(max(least, 1e-30))))
    eta: F32 = np.maximum((d - 1) * share / (1 - share), 1).astype(np.float32)
    return eta


@dataclass(frozen=True, slots=True)
class ProductQuantizer:
    """codebook (m, width, 16) float32 and block_dims (m + 1,) int32; see kernels/layout.py.

    d is the number of real dimensions; has_term says whether the last two sub-spaces hold the
    additive term of l2. With a rotation the sub-spaces are of its r directions, without one of the
    d dimensions themselves.
    """

    codebook: F32
    block_dims: I32
    d: int
    has_term: bool
    rotation: Rotation | None = None

    @property
    def m(self) -> int:
        """Sub-spaces, the term's two included: a multiple of 8."""
        return len(self.codebook)

    @property
    def blocks(self) -> int:
        """Sub-spaces that hold dimensions."""
        return self.m - (_TERM_BLOCKS if self.has_term else 0)

    @property
    def spread(self) -> float:
        """Standard deviation of a component of the residuals, as the codebook tells it."""
        real = self.codebook[: self.blocks]
        return float(np.sqrt(np.square(real, dtype=np.float64).mean(axis=2).sum() / self.d))

    @classmethod
    def train(
        cls,
        residuals: F32,
        dims_per_block: int,
        *,
        has_term: bool,
        rotate: bool | None = False,
        iterations: int = 10,
        seed: int = 0,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> ProductQuantizer:
        """k-means in every sub-space of (n >= 1, d) float32 residuals.

        rotate None: turned where that leaves at most 0.85 of the squared error, found by coding a
        few thousand residuals both ways.
        """
        d = residuals.shape[1]
        blocks = block_count(d, dims_per_block, has_term)

        def trained(coded: F32, rotation: Rotation | None, rounds: int) -> ProductQuantizer:
            return cls._trained(coded, blocks, d, rotation, rounds, seed, threads, progress)

        rotation = None
        if rotate is not False and residuals.any():
            rotation = Rotation.train(residuals, blocks)
            if rotate is None:
                few = np.ascontiguousarray(residuals[:: -(-len(residuals) // _TRIAL)])
                plain = trained(few, None, _TRIAL_ITERATIONS).error(few, threads)
                turned = trained(rotation.turn(few), rotation, _TRIAL_ITERATIONS)
                if not turned.error(few, threads) < _WORTH_TURNING * plain:
                    rotation = None
        coded = residuals if rotation is None else rotation.turn(residuals)
        product = trained(coded, rotation, iterations)
        if has_term:
            dims, width = product.block_dims, product.codebook.shape[1]
            dims = np.concatenate([dims, dims[-1:] + np.arange(1, _TERM_BLOCKS + 1)])
            terms = np.zeros((_TERM_BLOCKS, width, _CENTRES), np.float32)
            codebook = np.concatenate([product.codebook, terms])
            product = cls(codebook, dims.astype(np.int32), d, has_term, rotation)
        if progress:
            progress("codebooks", 1.0)
        return product

    @classmethod
    def _trained(
        cls,
        coded: F32,
        blocks: int,
        d: int,
        rotation: Rotation | None,
        iterations: int,
        seed: int,
        threads: int,
        progress: Progress | None,
    ) -> ProductQuantizer:
        """Sub-spaces of the columns of `coded`, residuals turned already, without a term."""
        columns = coded.shape[1]
        dims = (np.arange(blocks + 1) * columns // blocks).astype(np.int32)
        width = int(np.diff(dims).max(initial=1))
        rng = np.random.default_rng(seed)
        codebook = np.zeros((blocks, width, _CENTRES), np.float32)
        for b in range(blocks):
            picks = coded[rng.choice(len(coded), _CENTRES), dims[b] : dims[b + 1]]
            codebook[b, : dims[b + 1] - dims[b]] = picks.T
        product = cls(codebook, dims, d, False, rotation)
        weights = np.ones(len(coded), np.float32)
        for i in range(iterations):
            if progress:
                progress("codebooks", i / iterations)
            codes = active.encode(coded, coded, weights, codebook, dims, threads)
            product._improve(coded, codes, rng)
        return product

    def _improve(self, residuals: F32, codes: U8, rng: np.random.Generator) -> None:
        """One Lloyd step; a centre without points restarts at a random residual."""
        for b in range(len(self.codebook)):
            counts = np.bincount(codes[:, b], minlength=_CENTRES)
            restarts = residuals[rng.integers(len(residuals), size=_CENTRES)]
            for j, dim in enumerate(range(self.block_dims[b], self.block_dims[b + 1])):
                sums = np.bincount(codes[:, b], residuals[:, dim], minlength=_CENTRES)
                means = sums / np.maximum(counts, 1)
                self.codebook[b, j] = np.where(counts > 0, means, restarts[:, dim])

    def fit_term(self, terms: F32) -> None:
        """Set the term's levels from (n,) samples: 16 coarse steps of 16 fine ones."""
        low, high = float(terms.min(initial=0)), float(terms.max(initial=0))
        step = (high - low) / (_CENTRES * _CENTRES - 1)
        levels = np.arange(_CENTRES)
        self.codebook[-2, 0] = low + step * _CENTRES * levels
        self.codebook[-1, 0] = step * levels

    def encode(
        self,
        residuals: F32,
        directions: F32 | None = None,
        eta: F32 | None = None,
        threads: int = 1,
    ) -> U8:
        """(n, blocks) uint8 codes of the dimensions of (n, d) residuals, the term left out.

        directions (n, d) unit vectors and eta (n,) shape the error; without them the nearest
        centre of every sub-space is taken.
        """
        blocks = self.blocks
        coded = self._turned(residuals)
        if directions is None or eta is None:
            directions, eta = coded, np.ones(len(residuals), np.float32)
        else:
            directions = self._turned(directions)
        return active.encode(
            coded, directions, eta, self.codebook[:blocks], self.block_dims[: blocks + 1], threads
        )

    def _turned(self, vectors: F32) -> F32:
        return vectors if self.rotation is None else self.rotation.turn(vectors)

    def error(self, residuals: F32, threads: int = 1) -> float:
        """Mean squared distance of (n, d) residuals to what their codes stand for."""
        missed = residuals - self.decode(self.encode(residuals, threads=threads))
        return float(np.square(missed, dtype=np.float64).sum(axis=1).mean())

    def encode_term(self, terms: F32) -> U8:
        """(n, 2) uint8: coarse and fine level of (n,) additive terms, clipped to the range."""
        low, step = self.codebook[-2, 0, 0], self.codebook[-1, 0, 1]
        top = _CENTRES * _CENTRES - 1
        steps = (terms.astype(np.float64) - low) / step if step > 0 else np.zeros(len(terms))
        level = np.clip(np.rint(steps), 0, top).astype(np.uint8)
        return np.stack([level >> 4, level & 15], axis=1)

    def decode(self, codes: U8) -> F32:
        """(n, >= blocks) codes to (n, d) float32 reconstructions of the residuals."""
        blocks = self.blocks
        width = self.codebook.shape[1]
        is_real = np.arange(width) < np.diff(self.block_dims[: blocks + 1])[:, None]
        block, j = np.nonzero(is_real)  # (r,) each, or (d,)
        columns = self.codebook[block, j].reshape(-1)  # (r * 16,)
        places = _CENTRES * np.arange(len(block))
        out = np.empty((len(codes), len(block)), np.float32)
        for first in range(0, len(codes), _DECODE_BATCH):
            part = slice(first, first + _DECODE_BATCH)
            out[part] = columns[codes[part, block] + places]
        return out if self.rotation is None else self.rotation.turn_back(out)
