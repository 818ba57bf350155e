"""The softmax head by HiRE: a cheap copy says which tokens to look at, their logits are exact.

    copies.py, soardb.topk -> [head.py] -> model.py

A head of v tokens is v rows, and a decoder that takes the likeliest, or draws among the likeliest
k, needs the exact logits of few of them. What is predicted wrongly costs a row read; what is
predicted too low is lost, so k' is calibrated on states.

Nothing here knows of a language model: states in, logits and tokens out.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_asked, as_int, as_vectors
from soardb.errors import InvalidArgument
from soardb.kernels.layout import F32, I64
from soardb.topk import Calibration, Estimator, Hire, Traffic

__all__ = ["LAWS", "HireHead", "Law"]

Law = Literal["kept", "filled"]
LAWS: tuple[Law, ...] = get_args(Law)
"""What stands for tokens that are not among the k kept.

"kept"    -inf: the softmax goes over the k alone, so their probabilities are too large by what the
          others have. Greedy and top-k sampling with at most k lose nothing where the k are found
"filled"  an extension of soardb's: the predicted logit, below that of every kept one. The law sums
          over all tokens, and of those that were not kept it is approximate
"""


class HireHead:
    """The k largest logits of a state among the k' predicted.

    weight     (v, d) float32, borrowed: keep it
    estimator  of its rows; see Copy
    k          logits that are kept
    predicted  k', or None until calibrate() has chosen it
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        estimator: Estimator,
        *,
        k: int = 8,
        predicted: int | None = None,
    ) -> None:
        self._weight = as_vectors(weight, estimator.d, "dot", "weight")
        self._hire = Hire(self._weight, estimator, predicted=predicted)
        self.estimator = estimator
        self.k = as_int(k, "k", 1, estimator.n)
        if predicted is not None:
            as_int(predicted, "predicted", self.k, estimator.n, "it must hold the k kept")

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return self.estimator.n

    @property
    def predicted(self) -> int | None:
        """k', once it is known."""
        return self._hire.predicted

    def calibrate(
        self, states: npt.ArrayLike, recall_target: float = 0.99, *, confidence: float = 0.95
    ) -> Calibration:
        """Take the least k' whose recall@k reaches the target on (m, d) states; the whole curve.

        states  of texts like those to come, others than the copy was weighted by
        """
        return self._hire.calibrate(
            states, self.k, recall_target=recall_target, confidence=confidence
        )

    def topk(
        self, states: npt.ArrayLike, *, predicted: int | None = None, threads: int = 1
    ) -> tuple[F32, I64]:
        """(logits (nq, k) float32, tokens (nq, k) int64) of (d,) or (nq, d) states, best first.

        Logits are exact. Errors: NotTrained before calibrate(). Costs the copy and k' rows.
        """
        return self._hire.topk(states, self.k, predicted=predicted, threads=threads)

    def logits(self, states: npt.ArrayLike, law: Law = "kept") -> F32:
        """(nq, v) float32 for a softmax: k of them exact, the others as the law says (LAWS).

        "filled" costs a product of the copy more.
        """
        if law not in LAWS:
            raise InvalidArgument(f"expected law one of {', '.join(LAWS)}, got {law!r}")
        asked = as_asked(states, self.estimator.d)
        exact, tokens = self.topk(asked)
        if law == "filled":
            out = self.estimator.scores(asked) * self.estimator.factors(asked)[:, None]
            below = np.nextafter(exact[:, -1:], np.float32(-np.inf))
            np.minimum(out, below, out=out)
        else:
            out = np.full((len(asked), self.vocabulary), -np.inf, np.float32)
        np.put_along_axis(out, tokens, exact, axis=1)
        return out

    def traffic(self) -> Traffic:
        """Bytes that one state moves: the whole head, or the copy as it is and k' rows."""
        rows = self.vocabulary if self.predicted is None else self.predicted
        row = self._weight.itemsize * self.estimator.d
        return Traffic(self._weight.nbytes, self.estimator.bytes_read(), rows * row)
