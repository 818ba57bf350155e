"""Whether an ensemble is as often right as it says, and what bias and variance owe to that.

    ensemble.py, decomposition.py -> [calibration.py] -> run.py

If the mean h of the replicas is calibrated, E[bias^2 - variance] = 1 - E ||h_i||^2 over samples; of
replicas that are sure the right side is near 0, and of one-hot ones the identity says that two of
them disagree as often as one errs: Jiang, Nagarajan, Baek and Kolter, "Assessing generalization of
SGD via disagreement", 2022. It is about averages and not about any one sample.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.layout import I64
from soardb.pipelines.diagnose.decomposition import squared
from soardb.pipelines.diagnose.ensemble import F64, Ensemble

__all__ = ["Bins", "Calibration", "calibration_of", "ece", "reliability"]


@dataclass(frozen=True, slots=True)
class Bins:
    """Of confidences in equal steps of 0..1: (b,) counts, mean confidences and shares correct.

    A bin holds its upper edge. The latter two are nan where one is empty.
    """

    counts: I64
    confidence: F64
    accuracy: F64


@dataclass(frozen=True, slots=True)
class Calibration:
    """ece: expected calibration error of the mean; member_ece: of the replicas, on average.

    ensemble_error, member_error  shares of wrong samples: of the mean, of a replica on average
    disagreement  how often two different replicas predict different classes
    gap           disagreement - member_error: 0 for a calibrated ensemble
    excess        mean bias^2 - mean variance, plainly estimated
    unsureness    1 - E ||h_i||^2
    residual      excess - unsureness = 2 E <h, h - e_y>: 0 for a calibrated ensemble
    """

    ece: float
    member_ece: float
    ensemble_error: float
    member_error: float
    disagreement: float
    gap: float
    excess: float
    unsureness: float
    residual: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> Bins:
    """Confidence and accuracy by bins, of (n, c) probabilities and (n,) labels."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    as_int(bins, "bins", 1, 10_000)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise InvalidArgument(
            f"expected (n, c) probabilities and (n,) labels, got {p.shape} and {y.shape}"
        )
    sure = p.max(axis=1)
    right = p.argmax(axis=1) == y
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, sure, bins) / counts
        accuracy = np.bincount(place, right, bins) / counts
    return Bins(counts, confidence, accuracy)


def ece(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Mean over samples of |confidence - accuracy| of their bins."""
    found = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(found.confidence - found.accuracy))
    return float((found.counts * gaps).sum() / found.counts.sum())


def calibration_of(ensemble: Ensemble, bins: int = 15) -> Calibration:
    """What Calibration says, with `bins` bins of confidence. Errors: InvalidArgument."""
    m, n, c = ensemble.probabilities.shape
    said = ensemble.probabilities.argmax(axis=2)  # (m, n)
    votes = np.zeros((n, c))
    np.add.at(votes, (np.broadcast_to(np.arange(n), (m, n)), said), 1)
    agree = (votes * (votes - 1)).sum(axis=1) / (m * (m - 1))
    member_error = float((said != ensemble.labels).mean())
    disagreement = float(1 - agree.mean())
    parts = squared(ensemble, "plain")
    excess = float(parts.bias.mean() - parts.variance.mean())
    unsureness = float(1 - (ensemble.probabilities**2).sum(axis=2).mean())
    return Calibration(
        ece(ensemble.mean, ensemble.labels, bins),
        float(np.mean([ece(p, ensemble.labels, bins) for p in ensemble.probabilities])),
        float((~ensemble.correct).mean()),
        member_error,
        disagreement,
        disagreement - member_error,
        excess,
        unsureness,
        excess - unsureness,
    )
