"""Diagnose: bias and variance of each sample of an ensemble, and whether the two are aligned.

    user code, soardb diagnose -> [run.py] -> decomposition.py, fit.py, stability.py, cone.py

    found = diagnose.run(Ensemble.of_logits(logits, labels, ids), DiagnoseConfig(kl=True))
    found.fits["correct"].slope, found.cone.p99
    found.write_fields(collection)

Of over-parameterised networks log variance is reported to be log bias^2 plus a constant where the
ensemble is right, and variance at most a multiple of bias^2 everywhere: Chen, Lukasik, Jitkrittum,
You and Kumar, "On bias-variance alignment in deep models", 2024. Nothing is written unless asked.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.options import as_number
from soardb.pipelines.diagnose.calibration import Calibration, calibration_of
from soardb.pipelines.diagnose.cone import Cone, cone_of
from soardb.pipelines.diagnose.decomposition import (
    ESTIMATORS,
    Decomposition,
    Estimator,
    kl,
    squared,
)
from soardb.pipelines.diagnose.ensemble import F64, Ensemble
from soardb.pipelines.diagnose.fit import Fit, fit_line, usable
from soardb.pipelines.diagnose.stability import MIN_SPLIT, by_members, split_half
from soardb.pipelines.stored import set_fields

__all__ = ["GROUPS", "DiagnoseConfig", "Diagnosis", "run"]

GROUPS = ("correct", "wrong", "all")


Fits = dict[str, Fit | None]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DiagnoseConfig:
    """How to measure.

    estimator   "unbiased", "plain" or "pairs" (replicas 0 and 1, 2 and 3, ... are of one split);
                None: "pairs" where the ensemble's randomness says so, as that of `halves` here
                does, else "unbiased"
    bootstrap   how often points are resampled for intervals, 0 for none
    level       of the intervals
    splits      random halvings of the replicas for the split-half fits, 0 for none
    members     also fit the first m replicas, for each m named
    slope_bins  bins of the slope of means
    bins        bins of confidence of the ECE
    cone        a C: which share of samples has variance above C bias^2
    tolerance   a sample is misaligned if log variance is further than this many residual sd from
                the line through the correct samples
    kl          the KL decomposition too
    floor       smallest probability in the KL one; None refuses zeros
    seed        of what is random
    """

    estimator: Estimator | None = None
    bootstrap: int = 1000
    level: float = 0.95
    splits: int = 5
    members: tuple[int, ...] = ()
    slope_bins: int = 10
    bins: int = 15
    cone: float | None = None
    tolerance: float = 3.0
    kl: bool = False
    floor: float | None = None
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if self.estimator not in (None, *ESTIMATORS):
            raise InvalidArgument(
                f"expected estimator one of {', '.join(ESTIMATORS)}, got {self.estimator!r}"
            )
        as_int(self.bootstrap, "bootstrap", 0, 1_000_000)
        as_int(self.splits, "splits", 0, 10_000)
        as_int(self.slope_bins, "slope_bins", 2, 10_000)
        as_int(self.bins, "bins", 1, 10_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        for count in self.members:
            as_int(count, "members", 2, 2**31)
        if not 0 < as_number(self.level, "level") < 1:
            raise InvalidArgument(f"expected level between 0 and 1, got {self.level}")
        if as_number(self.tolerance, "tolerance") <= 0:
            raise InvalidArgument(f"expected tolerance above 0, got {self.tolerance}")
        if self.floor is not None and not self.kl:
            raise InvalidArgument("expected kl=True with a floor, which nothing else uses")

    def line(self) -> dict[str, Any]:
        """The options of fit_line."""
        return {
            "bootstrap": self.bootstrap,
            "level": self.level,
            "bins": self.slope_bins,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The report. bias is that of squared loss, already squared; arrays are (n,).

    correct     whether the mean of the replicas is right
    residual    log variance less the line through the correct samples, nan where there is none;
                -inf where replicas are wrong and do not differ at all
    misaligned  residuals further away than the tolerance; false where there is none
    fits        for "correct", "wrong" and "all"; None where a line cannot be drawn
    split_half  of the correct samples, one a halving
    by_members  of the correct samples, by the number of replicas
    cone        of all samples
    kl, kl_fits the KL decomposition, if asked for
    members, classes, seconds  replicas, classes, and how long it took
    """

    ensemble: Ensemble
    parts: Decomposition
    correct: Mask
    residual: F64
    misaligned: Mask
    fits: Fits
    split_half: list[Fit]
    by_members: dict[int, Fit | None]
    cone: Cone | None
    calibration: Calibration
    kl: Decomposition | None
    kl_fits: Fits | None
    config: DiagnoseConfig
    seconds: float

    def __len__(self) -> int:
        return len(self.ensemble)

    def to_arrow(self) -> Any:
        """A pyarrow.Table, a row a sample; its metadata names estimator and randomness.

        id, label, predicted, correct, bias, variance, risk, residual, misaligned; with KL also
        kl_bias, kl_variance, kl_risk. residual and misaligned are null where there is no residual.
        """
        pa = need_pyarrow()
        unknown = np.isnan(self.residual)
        columns = {
            "id": self.ensemble.ids,
            "label": self.ensemble.named(self.ensemble.labels),
            "predicted": self.ensemble.named(self.ensemble.mean.argmax(axis=1)),
            "correct": self.correct,
            "bias": self.parts.bias,
            "variance": self.parts.variance,
            "risk": self.parts.risk,
            "residual": pa.array(self.residual, mask=unknown),
            "misaligned": pa.array(self.misaligned, mask=unknown),
        }
        if self.kl is not None:
            columns |= {f"kl_{k}": getattr(self.kl, k) for k in ("bias", "variance", "risk")}
        table = pa.table(columns)
        told = {
            "estimator": self.config.estimator,
            "randomness": self.ensemble.randomness,
            "members": str(self.ensemble.members),
        }
        return table.replace_schema_metadata(told)

    def to_json(self) -> dict[str, Any]:
        """Plain values without the samples: fits, cone, calibration, means, config."""
        means = {k: float(getattr(self.parts, k).mean()) for k in ("bias", "variance", "risk")}
        out: dict[str, Any] = {
            "n": len(self),
            "members": self.ensemble.members,
            "classes": self.ensemble.classes,
            "randomness": self.ensemble.randomness,
            "mean": means,
            "misaligned": int(self.misaligned.sum()),
            "fits": _plain(self.fits),
            "split_half": [one.to_json() for one in self.split_half],
            "by_members": _plain({str(m): one for m, one in self.by_members.items()}),
            "cone": None if self.cone is None else self.cone.to_json(),
            "calibration": self.calibration.to_json(),
            "config": asdict(self.config),
            "seconds": self.seconds,
        }
        if self.kl_fits is not None:
            out["kl_fits"] = _plain(self.kl_fits)
        return out

    def write_fields(self, collection: Any, prefix: str = "") -> int:
        """Set the payload fields bias, variance and misaligned of each point, found by its id.

        prefix: before their names. To filter by them, declare them when the collection is made, as
        float, float and bool. misaligned is removed where there is no residual. Other fields
        stay. Returns how many points were written. Written a few thousand at a time, so an
        interruption leaves some as they were, and the same call again mends it. Errors: NotFound,
        before anything is written, where points are not there.
        """
        unknown = np.isnan(self.residual).tolist()
        columns = (self.parts.bias, self.parts.variance, self.misaligned)
        changes = [
            {
                f"{prefix}bias": bias,
                f"{prefix}variance": variance,
                f"{prefix}misaligned": None if none else misaligned,
            }
            for bias, variance, misaligned, none in zip(
                *(column.tolist() for column in columns), unknown, strict=True
            )
        ]
        return set_fields(collection, self.ensemble.ids, changes)


def run(ensemble: Ensemble, config: DiagnoseConfig | None = None) -> Diagnosis:
    """Diagnose an ensemble; see Diagnosis.

    Costs a few passes over its (m, n, c) probabilities and one a split; holds up to
    three more copies of them.
    Errors: InvalidArgument.
    """
    config = config or DiagnoseConfig()
    config.check()
    if config.splits and ensemble.members < MIN_SPLIT:
        raise InvalidArgument(
            f"expected at least {MIN_SPLIT} replicas for split-half fits, got {ensemble.members}; "
            "set splits=0"
        )
    for count in config.members:
        as_int(count, "members", 2, ensemble.members)
    began = time.perf_counter()
    estimator: Estimator = config.estimator or ("pairs" if ensemble.in_pairs else "unbiased")
    config = replace(config, estimator=estimator)
    parts = squared(ensemble, estimator)
    correct = ensemble.correct
    fits = _fits(parts, correct, config)
    residual, misaligned = _misaligned(parts, fits["correct"], config.tolerance)
    logs = None
    if config.kl:
        logs = kl(ensemble if config.floor is None else ensemble.floored(config.floor))
    return Diagnosis(
        ensemble,
        parts,
        correct,
        residual,
        misaligned,
        fits,
        split_half(ensemble, correct, config.splits, estimator, **config.line()),
        by_members(ensemble, correct, config.members, estimator, **config.line()),
        cone_of(parts, ensemble.members, config.cone),
        calibration_of(ensemble, config.bins),
        logs,
        None if logs is None else _fits(logs, correct, config),
        config,
        time.perf_counter() - began,
    )


def _fits(parts: Decomposition, correct: Mask, config: DiagnoseConfig) -> Fits:
    masks = (correct, ~correct, np.ones_like(correct))
    return {
        group: fit_line(parts.bias[mask], parts.variance[mask], **config.line())
        for group, mask in zip(GROUPS, masks, strict=True)
    }


def _misaligned(parts: Decomposition, line: Fit | None, tolerance: float) -> tuple[F64, Mask]:
    residual = np.full(len(parts.bias), np.nan)
    if line is None:
        return residual, np.zeros(len(residual), np.bool_)
    kept = usable(parts.bias, parts.variance)
    residual[kept] = np.log(parts.variance[kept]) - line.at(parts.bias[kept])
    # Replicas that are wrong and agree to the last bit are as far below the line as can be.
    residual[(parts.bias > 0) & (parts.variance <= 0)] = -np.inf
    # Of an exact line the residuals are rounding, which is not worth a flag.
    return residual, np.abs(residual) > max(tolerance * line.residual_sd, 1e-9)


def _plain(fits: dict[str, Fit | None]) -> dict[str, Any]:
    return {name: None if one is None else one.to_json() for name, one in fits.items()}
