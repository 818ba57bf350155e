"""How the cheap copy of a matrix is made, and what reading it costs beside the matrix itself.

    soardb.topk -> [copies.py] -> head.py, mixer.py

A Copy is a plain choice, so that heads, feed-forward parts, tables and the command line name it
alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32
from soardb.topk import Estimator, LowRank, Quantized

__all__ = ["Copy"]


@dataclass(frozen=True, slots=True)
class Copy:
    """bits: HiRE-Q, 8 or 4 bits a value; or rank: HiRE-LR, so many dimensions.

    weighted  of a rank: by the covariance of states, which make() is then given
    """

    bits: int | None = None
    rank: int | None = None
    weighted: bool = True

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if (self.bits is None) == (self.rank is None):
            raise InvalidArgument("expected either bits or rank of a copy, got both or neither")
        if self.bits is not None and as_int(self.bits, "bits", 4, 8) not in (4, 8):
            raise InvalidArgument(f"expected bits to be 4 or 8, got {self.bits}")
        if self.rank is not None:
            as_int(self.rank, "rank", 1, 2**20)

    @property
    def name(self) -> str:
        """As tables say it."""
        if self.bits is not None:
            return f"{self.bits} bits"
        return f"rank {self.rank}" + (", weighted" if self.weighted else "")

    def make(self, weight: F32, states: npt.ArrayLike | None = None) -> Estimator:
        """The copy of (n, d) rows.

        states  (m, d) of the kind that is asked later, and not those that k' is calibrated on;
                needed by a weighted rank alone
        """
        self.check()
        if self.bits is not None:
            return Quantized(weight, bits=self.bits)
        assert self.rank is not None
        if not self.weighted:
            return LowRank(weight, rank=self.rank)
        if states is None:
            raise InvalidArgument(
                "expected states to weigh a rank by, got none; pass some, or weighted=False"
            )
        return LowRank(weight, rank=self.rank, queries=states)
