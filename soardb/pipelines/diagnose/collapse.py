"""What neural collapse predicts of bias and variance, simulated: simplex, scale and noise alone.

    [collapse.py] -> bias^2 and variance over the scale s

A replica predicts softmax(s * w_y + v): w_y is the corner of a simplex for the true class, s the
size of the features, v noise that each replica draws anew for every class. The slope between
neighbouring scales is what a log-log fit of such a network would find. For two classes and Gumbel
noise of scale 1 the integrals are known, binary().
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.pipelines.diagnose.decomposition import Estimator, squared
from soardb.pipelines.diagnose.ensemble import F64, Ensemble

__all__ = ["NOISES", "Collapse", "CollapseConfig", "Noise", "binary", "simulate"]

Noise = Literal["gumbel", "normal"]
NOISES: tuple[Noise, ...] = get_args(Noise)

_STEPS = tuple(np.linspace(0, 8, 17).tolist())


@dataclass(frozen=True, slots=True)
class CollapseConfig:
    """What to simulate.

    classes      at least 2
    scales       s, rising, at least two, none below 0
    members      replicas of each scale
    noise        "gumbel", for which there are closed forms, or "normal"
    noise_scale  what the noise is multiplied by
    estimator    as for squared()
    seed         the same noise is used at every scale, so that slopes are smooth
    """

    classes: int = 10
    scales: tuple[float, ...] = field(default=_STEPS)
    members: int = 20_000
    noise: Noise = "gumbel"
    noise_scale: float = 1.0
    estimator: Estimator = "unbiased"
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.classes, "classes", 2, 100_000)
        as_int(self.members, "members", 2, 100_000_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        if self.noise not in NOISES:
            raise InvalidArgument(f"expected noise one of {', '.join(NOISES)}, got {self.noise!r}")
        if as_number(self.noise_scale, "noise_scale") <= 0:
            raise InvalidArgument(f"expected noise_scale above 0, got {self.noise_scale}")
        scales = [as_number(scale, "scales") for scale in self.scales]
        rises = all(a < b for a, b in pairwise(scales))
        if len(scales) < 2 or scales[0] < 0 or not rises:
            raise InvalidArgument(
                f"expected at least two scales that rise from 0 or more, got {self.scales}"
            )


@dataclass(frozen=True, slots=True)
class Collapse:
    """scales, bias, variance: each (k,), the bias squared; slopes: (k - 1,) between neighbours.

    slopes are nan where an estimate is not above 0.
    """

    scales: F64
    bias: F64
    variance: F64
    slopes: F64

    def to_json(self) -> dict[str, Any]:
        """Plain values by name; None for nan."""
        return {
            name: [None if np.isnan(x) else x for x in getattr(self, name).tolist()]
            for name in ("scales", "bias", "variance", "slopes")
        }


def simulate(config: CollapseConfig | None = None) -> Collapse:
    """Bias^2 and variance at each scale. Costs members x classes a scale. Errors: see check()."""
    config = config or CollapseConfig()
    config.check()
    c = config.classes
    rng = np.random.default_rng(config.seed)
    draw = rng.gumbel if config.noise == "gumbel" else rng.normal
    noise = draw(size=(config.members, 1, c)) * config.noise_scale
    corner = np.sqrt(c / (c - 1)) * (np.eye(c)[0] - 1 / c)
    found = [
        squared(Ensemble.of_logits(noise + scale * corner, [0]), config.estimator)
        for scale in config.scales
    ]
    bias = np.array([one.bias[0] for one in found])
    variance = np.array([one.variance[0] for one in found])
    return Collapse(np.array(config.scales, np.float64), bias, variance, _slopes(bias, variance))


def binary(scales: npt.ArrayLike) -> Collapse:
    """The same for two classes and Gumbel noise of scale 1, from the integrals; scales at least 0.

    The difference of two Gumbel variables is logistic, so that with a = sqrt(2) s and U uniform the
    other class has probability e = 1 / (1 + exp(a) U / (1 - U)). Bias^2 is 2 (E e)^2 and variance
    2 Var e.
    """
    s = np.atleast_1d(np.asarray(scales, np.float64))
    if s.ndim != 1 or not np.isfinite(s).all() or (s < 0).any() or (s > 200).any():
        raise InvalidArgument("expected scales as finite numbers in 0..200")
    # Near s = 0 the closed forms are differences of equals; their series is even better there.
    a = np.sqrt(2) * s
    small = a < 0.01
    r = np.exp(-np.where(small, 1.0, a))  # 1 / exp(a)
    safe = np.where(small, 1.0, a)
    mean = r * (safe - 1 + r) / (1 - r) ** 2
    second = r * (1 - r**2 - 2 * r * safe) / (1 - r) ** 3
    mean = np.where(small, 1 / 2 - a / 6 + a**3 / 180, mean)
    second = np.where(small, 1 / 3 - a / 6 + a**2 / 60 + a**3 / 180, second)
    bias, variance = 2 * mean**2, 2 * (second - mean**2)
    return Collapse(s, bias, variance, _slopes(bias, variance))


def _slopes(bias: F64, variance: F64) -> F64:
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.diff(np.log(np.where(bias > 0, bias, np.nan)))
        y = np.diff(np.log(np.where(variance > 0, variance, np.nan)))
        return np.asarray(y / x)
