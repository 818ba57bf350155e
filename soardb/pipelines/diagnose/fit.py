"""A line through log variance over log bias, by least squares, and how sure it is.

    decomposition.py -> [fit.py] -> run.py, stability.py

Over ten decades an R^2 near 1 comes cheap, so the residual in nats, the slope of bin means and the
residual at slope 1 stand beside it. Intervals are percentiles over resampled points.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.options import as_number
from soardb.pipelines.diagnose.ensemble import F64

__all__ = ["LEAST", "Fit", "fit_line", "usable"]

LEAST = 3
"""Points that a line needs, for a residual to be there."""

_BLOCK = 1 << 15  # counts that are made at once, so that they stay in the cache


@dataclass(frozen=True, slots=True)
class Fit:
    """log variance = intercept + slope * log bias, natural logarithms.

    n             points in the fit; `dropped` had a bias or a variance that is not above 0
    r2            share of the variance of log variance that the line explains
    residual_sd   of the residuals, with n - 2, in nats
    fixed_intercept, fixed_sd  at slope 1: the mean of log variance - log bias, and its sd
    binned_slope  of the means of bins of equal size by bias; None with fewer than two of them
    slope_interval, intercept_interval, r2_interval  None without a bootstrap
    """

    n: int
    dropped: int
    slope: float
    intercept: float
    r2: float
    residual_sd: float
    fixed_intercept: float
    fixed_sd: float
    binned_slope: float | None
    slope_interval: tuple[float, float] | None = None
    intercept_interval: tuple[float, float] | None = None
    r2_interval: tuple[float, float] | None = None

    def at(self, bias: npt.ArrayLike) -> F64:
        """log variance on the line, of biases above 0."""
        return np.asarray(self.intercept + self.slope * np.log(np.asarray(bias, np.float64)))

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def usable(bias: F64, variance: F64) -> npt.NDArray[np.bool_]:
    """(n,) whether both have a logarithm."""
    return np.asarray((bias > 0) & (variance > 0))


def fit_line(
    bias: npt.ArrayLike,
    variance: npt.ArrayLike,
    *,
    bootstrap: int = 1000,
    level: float = 0.95,
    bins: int = 10,
    seed: int = 0,
) -> Fit | None:
    """Fit (n,) biases and variances; None where fewer than 3 have logarithms or all biases agree.

    bootstrap: how often points are resampled, 0 for no intervals; level: of the intervals.
    Costs bootstrap x n. Errors: InvalidArgument.
    """
    b, v = np.asarray(bias, np.float64), np.asarray(variance, np.float64)
    if b.ndim != 1 or b.shape != v.shape:
        raise InvalidArgument(f"expected as many biases as variances, got {b.shape} and {v.shape}")
    if not (np.isfinite(b).all() and np.isfinite(v).all()):
        raise InvalidArgument("expected finite biases and variances, some are not")
    as_int(bootstrap, "bootstrap", 0, 1_000_000)
    as_int(bins, "bins", 2, 10_000)
    if not 0 < as_number(level, "level") < 1:
        raise InvalidArgument(f"expected level between 0 and 1, got {level}")
    kept = usable(b, v)
    x, y = np.log(b[kept]), np.log(v[kept])
    n = len(x)
    if n < LEAST or np.ptp(x) == 0:
        return None
    slope, intercept, r2 = map(float, _line(x, y))
    residuals = y - intercept - slope * x
    gaps = y - x
    intervals: list[tuple[float, float] | None] = [None, None, None]
    if bootstrap:
        drawn = _resampled(x, y, bootstrap, seed)
        ends = ((1 - level) / 2, (1 + level) / 2)
        intervals = [
            (float(low), float(high)) for low, high in np.nanquantile(drawn, ends, axis=1).T
        ]
    return Fit(
        n,
        len(b) - n,
        slope,
        intercept,
        r2,
        float(np.sqrt((residuals**2).sum() / (n - 2))),
        float(gaps.mean()),
        float(gaps.std(ddof=1)),
        _binned_slope(x, y, bins),
        *intervals,
    )


def _moments(x: F64, y: F64) -> F64:
    """(n, 5) x, y, xx, xy, yy of each point: a line needs their mean alone."""
    return np.stack([x, y, x * x, x * y, y * y], axis=1)


def _lines(means: F64) -> F64:
    """(3, k) slopes, intercepts and R^2 of (k, 5) mean moments; nan where x does not vary."""
    x, y, xx, xy, yy = means.T
    xx, xy, yy = xx - x**2, xy - x * y, yy - y**2
    xx = np.where(xx > 0, xx, np.nan)
    slope = xy / xx
    # Of variances that all agree, a level line explains all there is.
    r2 = np.where(yy > 0, np.clip(xy * slope / np.where(yy > 0, yy, 1), 0, 1), 1.0)
    return np.stack([slope, y - slope * x, np.where(np.isnan(slope), np.nan, r2)])


def _line(x: F64, y: F64) -> F64:
    """Slope, intercept and R^2. Centred first, as moments of what is far from 0 are rounding."""
    slope, intercept, r2 = _lines(_moments(x - x.mean(), y - y.mean()).mean(axis=0)[None])[:, 0]
    return np.array([slope, intercept + y.mean() - slope * x.mean(), r2])


def _resampled(x: F64, y: F64, times: int, seed: int) -> F64:
    """(3, times) slopes, intercepts and R^2 of resampled points."""
    n = len(x)
    moments = _moments(x - x.mean(), y - y.mean())
    rng = np.random.default_rng(seed)
    means = np.empty((times, 5))
    step = max(1, _BLOCK // n)
    for first in range(0, times, step):
        some = min(step, times - first)
        drawn = rng.integers(0, n, (some, n)) + np.arange(0, some * n, n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=some * n).reshape(some, n)
        means[first : first + some] = counts.astype(np.float64) @ moments / n
    found = _lines(means)
    found[1] += y.mean() - found[0] * x.mean()
    return found


def _binned_slope(x: F64, y: F64, bins: int) -> float | None:
    order = np.argsort(x, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    xs = np.array([x[part].mean() for part in parts])
    ys = np.array([y[part].mean() for part in parts])
    if np.ptp(xs) == 0:
        return None
    return float(_line(xs, ys)[0])
