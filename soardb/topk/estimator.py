"""Cheap copies of vectors that predict which of them have the biggest products with a query.

    [estimator.py] -> hire.py

    Quantized   8 or 4 bits a value, a scale for each vector: HiRE-Q. n d bits / 8 bytes are read
    LowRank     rank r: x ~ U v with U (d, r), v (r,): HiRE-LR. 4 (n + d) r bytes are read

A prediction only has to have the true ones somewhere among the first k'; what else is among them
costs a row read each and no recall. The two ideas are of the HiRE paper (arXiv 2402.09360); that
factors come from an SVD, weighted by the queries' covariance where queries are given, is ours.

Nothing here scores exactly.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int, as_vectors
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import BLOCK, F32, I8, I64, U8

__all__ = ["Estimator", "LowRank", "Quantized"]

_CHUNK = 65536


class Estimator(Protocol):
    """What predicts: the same face for every kind of copy."""

    n: int
    d: int

    def predict(self, queries: F32, count: int, threads: int = 1) -> I64:
        """(nq, count) int64 rows of the highest predicted products, best first; -1 where none."""
        ...

    def scores(self, queries: F32, threads: int = 1) -> F32:
        """(nq, n) float32 predicted products, up to a positive factor of each query."""
        ...

    def factors(self, queries: F32) -> F32:
        """(nq,) float32: scores() times these are the predicted products themselves."""
        ...

    def bytes_read(self) -> int:
        """Bytes of the copy, all of which one query reads."""
        ...


class Quantized:
    """HiRE-Q: symmetric integers with one scale a vector.

    bits  8: levels -127..127; 4: levels -7..7

    The levels of vector x are rint(x / scale), scale = max |x| / 127 or / 7. The query is rounded
    to signed bytes; a product is one integer sum and one float product.
    """

    def __init__(self, vectors: npt.ArrayLike, *, bits: int = 8) -> None:
        self.bits = as_int(bits, "bits", 4, 8)
        if self.bits not in (4, 8):
            raise InvalidArgument(f"expected bits to be 4 or 8, got {bits}")
        checked = _as_matrix(vectors)
        self.n, self.d = checked.shape
        self._width = -(-self.d // 8) * 8 if self.bits == 4 else -(-self.d // 4) * 4
        self._scale = np.zeros(-(-self.n // BLOCK) * BLOCK, np.float32)
        self._codes = self._encode(checked)

    def _encode(self, vectors: F32) -> U8:
        top, zero = (127, 128) if self.bits == 8 else (7, 8)
        units = self._width // (4 if self.bits == 8 else 8)
        codes = np.empty((len(self._scale) // BLOCK, units, 64), np.uint8)
        for first in range(0, self.n, _CHUNK):
            part = vectors[first : first + _CHUNK]
            scale = np.abs(part).max(axis=1) / np.float32(top)
            self._scale[first : first + len(part)] = scale
            divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
            levels = np.clip(np.rint(part / divisor), -top, top)
            rows = np.full((len(part), self._width), zero, np.uint8)
            rows[:, : self.d] = (levels + zero).astype(np.uint8)
            packed = active.pack_u8_blocks(rows) if self.bits == 8 else active.pack_codes(rows)
            at = first // BLOCK
            codes[at : at + len(packed)] = packed.reshape(len(packed), units, 64)
        return codes

    def _as_levels(self, queries: F32) -> I8:
        """(nq, d) float32 to (nq, width) int8: each query over its own peak."""
        peak = np.abs(queries).max(axis=1, initial=0, keepdims=True)
        levels = np.zeros((len(queries), self._width), np.int8)
        levels[:, : self.d] = np.rint(
            queries / np.where(peak > 0, peak, np.float32(1)) * np.float32(127)
        )
        return levels

    def predict(self, queries: F32, count: int, threads: int = 1) -> I64:
        """See Estimator.predict. Scores and selection are one pass over the codes."""
        levels = self._as_levels(queries)
        _, rows = active.quantized_topk(
            self._codes, self.bits, self.n, self._scale, levels, count, threads
        )
        return rows

    def scores(self, queries: F32, threads: int = 1) -> F32:
        """See Estimator.scores."""
        levels = self._as_levels(queries)
        return active.quantized_scores(self._codes, self.bits, self.n, self._scale, levels, threads)

    def factors(self, queries: F32) -> F32:
        """See Estimator.factors. A query was divided by its peak, and multiplied by 127."""
        found: F32 = np.abs(queries).max(axis=1, initial=0) / np.float32(127)
        return found

    def bytes_read(self) -> int:
        """See Estimator.bytes_read."""
        return self._codes.nbytes + self._scale.nbytes


class LowRank:
    """HiRE-LR: the best approximation of rank r, in products with the queries that come.

    rank     within 1..d
    queries  (nq, d) of the kind that will be asked: the error E <q, x - x~>^2 over them is then
             minimised, by an SVD of C^(1/2) X with C = E q q^T. None: C = 1, the plain SVD.
             Calibrate on others: of these, the factors know too much
    """

    def __init__(
        self, vectors: npt.ArrayLike, *, rank: int, queries: npt.ArrayLike | None = None
    ) -> None:
        checked = _as_matrix(vectors)
        self.n, self.d = checked.shape
        self.rank = as_int(rank, "rank", 1, self.d, "a rank above d is no approximation")
        root, inverse = np.eye(self.d), np.eye(self.d)
        if queries is not None:
            root, inverse = _square_root(as_vectors(queries, self.d, "dot", "queries"))
        # Only the d x d Gram matrix of C^(1/2) X is needed, never its n columns at once.
        gram = np.zeros((self.d, self.d))
        for first in range(0, self.n, _CHUNK):
            part = checked[first : first + _CHUNK].astype(np.float64)
            gram += part.T @ part
        _, basis = np.linalg.eigh(root @ gram @ root)
        kept = basis[:, ::-1][:, : self.rank]  # (d, r)
        self._up: F32 = np.ascontiguousarray(inverse @ kept, np.float32)  # of a query
        self._rows: F32 = np.ascontiguousarray(checked @ (root @ kept).astype(np.float32))

    @property
    def products(self) -> tuple[F32, F32]:
        """(d, r) of a query and (n, r) of the vectors: a predicted product is <q up, row>."""
        return self._up, self._rows

    @classmethod
    def of_products(cls, up: npt.ArrayLike, rows: npt.ArrayLike) -> Self:
        """From factors that were made elsewhere, (d, r) and (n, r). Errors: InvalidArgument."""
        found = cls.__new__(cls)
        found._up, found._rows = _as_matrix(up), _as_matrix(rows)
        if found._up.shape[1] != found._rows.shape[1]:
            raise InvalidArgument(
                f"expected factors of one rank, got {found._up.shape} and {found._rows.shape}"
            )
        found.n, (found.d, found.rank) = len(found._rows), found._up.shape
        return found

    def predict(self, queries: F32, count: int, threads: int = 1) -> I64:
        """See Estimator.predict. One exact top-k in r dimensions."""
        _, rows = active.exact_topk(self._rows, self._project(queries), count, "dot", threads)
        return rows

    def scores(self, queries: F32, threads: int = 1) -> F32:
        """See Estimator.scores."""
        del threads
        products: F32 = self._project(queries) @ self._rows.T
        return products

    def factors(self, queries: F32) -> F32:
        """See Estimator.factors."""
        return np.ones(len(queries), np.float32)

    def _project(self, queries: F32) -> F32:
        projected: F32 = np.ascontiguousarray(queries @ self._up)
        return projected

    def bytes_read(self) -> int:
        """See Estimator.bytes_read."""
        return self._rows.nbytes + self._up.nbytes


def _as_matrix(vectors: npt.ArrayLike) -> F32:
    given = np.asarray(vectors)
    if given.ndim != 2 or not given.size:
        raise InvalidArgument(f"expected vectors of shape (n, d), got {given.shape}")
    return as_vectors(given, given.shape[1], "dot")


def _square_root(queries: F32) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """C^(1/2) and its inverse; what no query has is kept at a thousandth of the mean."""
    if not len(queries):
        raise InvalidArgument("expected at least one query to weigh the error by, got none")
    wide = queries.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide / len(wide))
    values = np.maximum(values, max(values.mean() * 1e-3, np.finfo(np.float64).tiny))
    root = (vectors * np.sqrt(values)) @ vectors.T
    return root, (vectors / np.sqrt(values)) @ vectors.T
