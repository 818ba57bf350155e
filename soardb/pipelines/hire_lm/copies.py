"""How the cheap copy of a matrix is made, and what reading it costs beside the matrix itself.

    soardb.topk, factors.py -> [copies.py] -> head.py, mixer.py

A Copy is a plain choice, so that heads, feed-forward parts, tables and the command line name it
alike.

States of a language model have a few coordinates many times as large as the others, and integers
with one scale a row then round away what the others say. `Turned` evens that out before rounding:
<w, x> = <(w * s) Q, (x / s) Q> for any scales s and rotation Q, so nothing changes but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int, as_vectors
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.pipelines.hire_lm.factors import trained
from soardb.topk import Estimator, LowRank, Quantized

__all__ = ["Copy", "Turned"]

_POWER = 0.25
"""Of the states' size in each coordinate: how far rounding is moved from states to rows."""


@dataclass(frozen=True, slots=True)
class Copy:
    """bits: HiRE-Q, 8 or 4 bits a value; or rank: HiRE-LR, so many dimensions.

    weighted  of a rank: by the covariance of states, which make() is then given
    trained   of a weighted rank: steps by which the factors then learn from those states what the
              rows themselves say of them; see factors.py
    turned    of bits: evened out by states and turned, see Turned
    """

    bits: int | None = None
    rank: int | None = None
    weighted: bool = True
    trained: int = 0
    turned: bool = False

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if (self.bits is None) == (self.rank is None):
            raise InvalidArgument("expected either bits or rank of a copy, got both or neither")
        if self.bits is not None and as_int(self.bits, "bits", 4, 8) not in (4, 8):
            raise InvalidArgument(f"expected bits to be 4 or 8, got {self.bits}")
        if self.rank is not None:
            as_int(self.rank, "rank", 1, 2**20)
        if as_int(self.trained, "trained", 0, 10_000_000) and not (self.rank and self.weighted):
            raise InvalidArgument("expected trained of a weighted rank, got it with another copy")
        if self.turned and self.rank is not None:
            raise InvalidArgument("expected turned of bits, got it with a rank")

    @property
    def name(self) -> str:
        """As tables say it."""
        if self.bits is not None:
            return f"{self.bits} bits" + (", turned" if self.turned else "")
        how = ", trained" if self.trained else ", weighted" if self.weighted else ""
        return f"rank {self.rank}{how}"

    def make(self, weight: F32, states: npt.ArrayLike | None = None) -> Estimator:
        """The copy of (n, d) rows.

        states  (m, d) of the kind that is asked later, and not those that k' is calibrated on;
                needed by a weighted rank and by turned bits
        """
        self.check()
        if states is None and (self.turned if self.rank is None else self.weighted):
            raise InvalidArgument(
                "expected states to make this copy by, got none; pass some, or weighted=False, "
                "turned=False"
            )
        if self.bits is not None:
            if self.turned:
                assert states is not None
                return Turned(weight, states, bits=self.bits)
            return Quantized(weight, bits=self.bits)
        assert self.rank is not None
        if self.trained:
            assert states is not None
            given = as_vectors(states, weight.shape[1], "dot", "states")
            return trained(weight, given, self.rank, self.trained)
        return LowRank(weight, rank=self.rank, queries=states if self.weighted else None)


class Turned:
    """HiRE-Q of rows that were scaled and turned; an Estimator.

    states  (m, d), m at least 1: their root mean square in each coordinate gives the scales
    seed    of the rotation

    A query costs a (d, d) product more than Quantized.
    """

    def __init__(self, weight: F32, states: npt.ArrayLike, *, bits: int = 4, seed: int = 0) -> None:
        self.n, self.d = weight.shape
        given = as_vectors(states, self.d, "dot", "states")
        if not len(given):
            raise InvalidArgument("expected at least one state to scale by, got none")
        size = np.sqrt(np.square(given, dtype=np.float64).mean(axis=0))
        # A coordinate that no state has is given the scale of one that is small.
        scale = np.maximum(size, max(size.mean() * 1e-3, np.finfo(np.float32).tiny)) ** _POWER
        turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((self.d, self.d)))
        self._up: F32 = np.ascontiguousarray(turn / scale[:, None], np.float32)
        self._copy = Quantized(weight @ (turn * scale[:, None]).astype(np.float32), bits=bits)

    def predict(self, queries: F32, count: int, threads: int = 1) -> I64:
        """See Estimator.predict."""
        return self._copy.predict(self._project(queries), count, threads)

    def scores(self, queries: F32, threads: int = 1) -> F32:
        """See Estimator.scores."""
        return self._copy.scores(self._project(queries), threads)

    def factors(self, queries: F32) -> F32:
        """See Estimator.factors."""
        return self._copy.factors(self._project(queries))

    def bytes_read(self) -> int:
        """See Estimator.bytes_read."""
        return self._copy.bytes_read() + self._up.nbytes

    def _project(self, queries: F32) -> F32:
        projected: F32 = np.ascontiguousarray(queries @ self._up)
        return projected
