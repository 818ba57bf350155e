"""Lines through log variance over log bias, and the report that is made of everything.

ensembles.py -> [test_diagnose_lines.py]; test_diagnose.py has the decompositions
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.diagnose import DiagnoseConfig, Ensemble, fit_line, run, squared
from soardb.pipelines.diagnose.ensemble import HALVES
from soardb.pipelines.diagnose.plot import plot_diagnosis
from soardb.pipelines.diagnose.stability import by_members, split_half
from tests.pipelines.ensembles import by_chance, logits_of

FIELDS = {"bias": "float", "variance": "float", "misaligned": "bool"}
FEW = DiagnoseConfig(bootstrap=50, splits=2)


def line(slope: float, intercept: float, noise: float, n: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-20, 0, n)
    return np.exp(x), np.exp(intercept + slope * x + noise * rng.normal(size=n))


def heavy(seed: int, members: int, n: int) -> Ensemble:
    """No alignment at all: one replica a sample is off, by an amount that says nothing of others.

    Errors of replicas are independent draws from the same distribution for every sample.
    """
    rng = np.random.default_rng(seed)
    z = np.zeros((members, n, 2))
    z[..., 0] = 8 + 4 * rng.normal(size=(members, n))
    return Ensemble.of_logits(z, np.zeros(n, np.int64))


class TestFit:
    @pytest.mark.parametrize("slope", [-1.0, 0.5, 1.0, 2.0])
    def test_exact_lines_are_found_exactly(self, slope: float) -> None:
        found = fit_line(*line(slope, -0.7, 0.0, 200))
        assert found is not None
        assert found.slope == pytest.approx(slope, abs=1e-12)
        assert found.intercept == pytest.approx(-0.7, abs=1e-10)
        assert found.binned_slope == pytest.approx(slope, abs=1e-12)
        assert found.r2 == pytest.approx(1, abs=1e-12)
        assert found.residual_sd < 1e-10
        assert found.slope_interval == pytest.approx((slope, slope), abs=1e-10)

    def test_it_is_the_line_of_least_squares(self) -> None:
        """Against NumPy's, and R^2 and sd from their definitions."""
        bias, variance = line(0.8, -1.2, 0.6, 500)
        found = fit_line(bias, variance)
        x, y = np.log(bias), np.log(variance)
        slope, intercept = np.polyfit(x, y, 1)
        rest = y - slope * x - intercept
        assert found is not None
        assert found.slope == pytest.approx(slope)
        assert found.intercept == pytest.approx(intercept)
        assert found.r2 == pytest.approx(1 - (rest**2).sum() / ((y - y.mean()) ** 2).sum())
        assert found.residual_sd == pytest.approx(np.sqrt((rest**2).sum() / 498))
        assert found.fixed_intercept == pytest.approx((y - x).mean())
        assert found.fixed_sd == pytest.approx((y - x).std(ddof=1))
        assert found.at(bias) == pytest.approx(y - rest)

    def test_intervals_hold_the_truth_as_often_as_they_say(self) -> None:
        """200 lines of 100 points at level 0.9: 180 expected, 4.2 the sd; 5 sd are allowed."""
        held = np.zeros(2)
        for seed in range(200):
            found = fit_line(*line(0.9, -0.5, 0.5, 100, seed), bootstrap=400, level=0.9)
            assert found is not None
            assert found.slope_interval is not None
            assert found.intercept_interval is not None
            assert found.r2_interval is not None
            held[0] += found.slope_interval[0] <= 0.9 <= found.slope_interval[1]
            held[1] += found.intercept_interval[0] <= -0.5 <= found.intercept_interval[1]
            assert found.r2_interval[0] <= found.r2 <= found.r2_interval[1]
        assert (np.abs(held - 180) < 21).all()

    @pytest.mark.parametrize(("level", "z"), [(0.5, 0.674), (0.9, 1.645), (0.95, 1.96)])
    def test_intervals_are_those_of_the_normal_theory(self, level: float, z: float) -> None:
        """Of many points with normal residuals; measured within 4 %, 7 % allowed."""
        bias, variance = line(0.9, -0.5, 0.5, 3000)
        found = fit_line(bias, variance, bootstrap=6000, level=level)
        assert found is not None
        assert found.slope_interval is not None
        sd = found.residual_sd / (np.log(bias).std() * np.sqrt(3000))
        low, high = found.slope_interval
        assert (found.slope - low) / sd == pytest.approx(z, rel=0.07)
        assert (high - found.slope) / sd == pytest.approx(z, rel=0.07)

    def test_points_without_a_logarithm_are_dropped_and_counted(self) -> None:
        bias, variance = line(1.0, 0.0, 0.1, 50)
        bias[3], variance[4], variance[5] = -1e-9, 0.0, 1e-300
        found = fit_line(bias, variance, bootstrap=0)
        assert found is not None
        assert (found.n, found.dropped) == (48, 2)
        assert found.slope_interval is None

    @pytest.mark.parametrize("bias", [[1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    def test_no_line_is_said_to_be_none(self, bias: list[float]) -> None:
        """Two points, one bias alone, one point with a logarithm."""
        assert fit_line(bias, np.ones(len(bias))) is None

    def test_a_seed_fixes_the_intervals(self) -> None:
        given = line(1.0, 0.0, 1.0, 60)
        assert fit_line(*given, seed=1) == fit_line(*given, seed=1)
        assert fit_line(*given, seed=1) != fit_line(*given, seed=2)

    @pytest.mark.parametrize(
        ("bias", "variance", "options", "message"),
        [
            ([1.0, 2.0], [1.0], {}, "as many biases as variances"),
            ([1.0, np.inf], [1.0, 2.0], {}, "finite"),
            ([1.0, 2.0], [1.0, 2.0], {"level": 1.0}, "level between 0 and 1"),
            ([1.0, 2.0], [1.0, 2.0], {"bootstrap": -1}, "bootstrap"),
            ([1.0, 2.0], [1.0, 2.0], {"bins": 1}, "bins"),
        ],
    )
    def test_bad_input_is_named(self, bias: Any, variance: Any, options: Any, message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            fit_line(bias, variance, **options)


class TestStability:
    def test_what_is_arithmetic_alone_goes_when_replicas_are_split(self) -> None:
        """Independent heavy-tailed errors: slope near 1 from the same replicas, 0 from disjoint."""
        ensemble = heavy(0, 8, 4000)
        among = np.ones(4000, np.bool_)
        parts = squared(ensemble, "plain")
        same = fit_line(parts.bias, parts.variance, bootstrap=0)
        assert same is not None
        assert same.slope > 0.95  # measured 1.02
        assert same.r2 > 0.95
        halves = split_half(ensemble, among, 3, bootstrap=0)
        assert len(halves) == 3
        assert all(abs(one.slope) < 0.1 for one in halves)
        assert all(one.r2 < 0.01 for one in halves)

    def test_its_intercept_moves_with_the_number_of_replicas(self) -> None:
        """Towards log m: no more than log (m - 1), the certain bound, at slope 1."""
        found = by_members(
            heavy(1, 32, 2000), np.ones(2000, np.bool_), (2, 8, 32), "plain", bootstrap=0
        )
        middles = [one.fixed_intercept for one in found.values() if one is not None]
        assert middles[0] < middles[1] < middles[2]
        assert middles[1] <= np.log(7)
        assert middles[2] <= np.log(31)

    def test_what_is_there_stays_when_replicas_are_split(self) -> None:
        """Errors that are the sample's own times one plus noise: slope 1 either way."""
        rng = np.random.default_rng(5)
        own = rng.uniform(2, 16, 1000)
        z = np.zeros((24, 1000, 2))
        z[..., 0] = own + 0.5 * rng.normal(size=(24, 1000))
        ensemble = Ensemble.of_logits(z, np.zeros(1000, np.int64))
        for one in split_half(ensemble, ensemble.correct, 3, bootstrap=0):
            assert one.slope == pytest.approx(1, abs=0.02)
            assert one.r2 > 0.98

    def test_replicas_without_their_twins_are_in_pairs_no_more(self) -> None:
        """Unless all that are left are whole pairs in order."""
        one = replace(by_chance(0, members=6), randomness=HALVES)
        assert one.in_pairs
        assert one.only([2, 3, 0, 1]).in_pairs
        for some in ([0, 2, 4], [0, 2], [1, 0], [0, 1, 2], [0, 3]):
            assert not one.only(some).in_pairs

    def test_pairs_stay_together(self) -> None:
        """Pairs of twins: there is no variance within a pair, and so no line, however halved."""
        one = by_chance(0, members=4)
        ensemble = one.only([0, 0, 1, 1, 2, 2, 3, 3])
        assert split_half(ensemble, ensemble.correct, 3, "pairs", bootstrap=0) == []
        assert len(split_half(ensemble, ensemble.correct, 3, bootstrap=0)) == 3
        with pytest.raises(InvalidArgument, match="even number of replicas with 'pairs', got 5"):
            split_half(by_chance(0, members=5), ensemble.correct, 1, "pairs")

    def test_too_few_replicas_are_refused(self) -> None:
        ensemble = by_chance(0, members=3)
        with pytest.raises(InvalidArgument, match="at least 4 replicas to halve, got 3"):
            split_half(ensemble, ensemble.correct, 1)
        with pytest.raises(InvalidArgument, match="at least 4 replicas for .* set splits=0"):
            run(ensemble)
        assert run(ensemble, replace(FEW, splits=0)).split_half == []


class TestReport:
    def test_groups_are_by_the_mean_of_the_replicas(self) -> None:
        ensemble = by_chance(0, n=300)
        found = run(ensemble, FEW)
        right = ensemble.mean.argmax(axis=1) == ensemble.labels
        assert 0 < right.sum() < 300
        for group, mask in (("correct", right), ("wrong", ~right), ("all", right | True)):
            parts = found.parts
            assert found.fits[group] == fit_line(
                parts.bias[mask], parts.variance[mask], bootstrap=50
            )

    def test_a_sample_off_the_line_is_flagged(self) -> None:
        """One of 400 has 30 times the noise of its neighbours, and nobody else is flagged."""
        rng = np.random.default_rng(7)
        z = np.zeros((40, 400, 2))
        z[..., 0] = rng.uniform(4, 12, 400) + 0.5 * rng.normal(size=(40, 400))
        z[:, 17, 0] = 8.0 + 0.01 * rng.normal(size=40)
        found = run(Ensemble.of_logits(z, np.zeros(400, np.int64)), replace(FEW, tolerance=8.0))
        assert np.flatnonzero(found.misaligned).tolist() == [17]
        assert found.residual[17] < -5

    def test_an_exact_line_flags_nobody(self) -> None:
        """Where residuals are rounding, half an sd of them is no reason."""
        p = np.linspace(1e-6, 1e-2, 50)
        errors = p * np.array([0.5, 1.0, 1.5, 1.0])[:, None]
        z = np.stack([1 - errors, errors], axis=2)
        found = run(
            Ensemble.of_probabilities(z, np.zeros(50, np.int64)), replace(FEW, tolerance=0.5)
        )
        assert found.fits["correct"] is not None
        assert found.fits["correct"].slope == pytest.approx(1)
        assert not found.misaligned.any()

    def test_the_table_has_a_row_a_sample(self) -> None:
        z, labels = logits_of(1)
        z[:, 5, labels[5]] = 2000  # so sure that no replica errs in any float
        ensemble = Ensemble.of_logits(z, labels, randomness="seeds", names=list("vwxyz"))
        found = run(ensemble, replace(FEW, kl=True))
        table = found.to_arrow()
        assert table.num_rows == len(found) == len(ensemble)
        assert table["bias"].to_pylist() == found.parts.bias.tolist()
        assert table["id"].to_pylist() == ensemble.ids
        assert table["label"].to_pylist() == ["vwxyz"[label] for label in labels]
        right = [a == b for a, b in zip(*table.select(["label", "predicted"]), strict=True)]
        assert right == table["correct"].to_pylist() == ensemble.correct.tolist()
        unknown = np.isnan(found.residual)
        assert np.flatnonzero(unknown).tolist() == [5]
        assert table["misaligned"].null_count == table["residual"].null_count == unknown.sum()
        assert table.schema.metadata[b"randomness"] == b"seeds"
        assert found.kl is not None
        assert table["kl_risk"].to_pylist() == found.kl.risk.tolist()
        assert "kl_risk" not in run(ensemble, FEW).to_arrow().column_names

    def test_plain_values_are_json(self) -> None:
        found = run(by_chance(2), replace(FEW, members=(2, 4), cone=2.0, kl=True))
        told = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert told["fits"]["correct"]["slope"] == found.fits["correct"].slope  # type: ignore[union-attr]
        assert told["cone"]["bound"] == 2.0
        assert set(told["by_members"]) == {"2", "4"}
        assert set(told["kl_fits"]) == {"correct", "wrong", "all"}
        assert told["mean"]["risk"] == pytest.approx(
            told["mean"]["bias"] + told["mean"]["variance"]
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"estimator": "best"}, "estimator one of unbiased, plain, pairs, got 'best'"),
            ({"members": (7,)}, "members within 2..6, got 7"),
            ({"members": (1,)}, "members"),
            ({"bootstrap": -1}, "bootstrap"),
            ({"level": 0.0}, "level between 0 and 1"),
            ({"tolerance": 0.0}, "tolerance above 0"),
            ({"cone": -2.0}, "bound above 0"),
            ({"floor": 1e-9}, "kl=True with a floor"),
            ({"bins": 0}, "bins"),
            ({"slope_bins": 1}, "slope_bins"),
            ({"seed": -1}, "seed"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            run(by_chance(0), replace(FEW, **options))


@pytest.fixture
def points(tmp_path: Path) -> Iterator[Any]:
    """80 points with string ids and a payload of their own."""
    with soardb.connect(tmp_path / "db") as database:
        made = database.create_collection("samples", 4, "l2", schema=FIELDS)
        vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
        made.upsert([f"s{i}" for i in range(80)], vectors, [{"n": i} for i in range(80)])
        yield made


class TestWriteBack:
    def test_fields_can_be_filtered_and_others_stay(self, points: Any) -> None:
        z, labels = logits_of(1)
        z[:, 5, labels[5]] = 2000  # no residual
        ids = [f"s{i}" for i in range(80)]
        points.update_payload({"misaligned": True}, ids=["s5"])
        found = run(Ensemble.of_logits(z, labels, ids), replace(FEW, tolerance=1.0))
        assert found.write_fields(points) == 80
        for row, point in enumerate(points.get(ids)):
            assert point.payload["n"] == row
            assert point.payload["bias"] == found.parts.bias[row]
            assert point.payload["variance"] == found.parts.variance[row]
            known = not np.isnan(found.residual[row])
            assert point.payload.get("misaligned") == (found.misaligned[row] if known else None)
        flagged = {p.id for p in points.scroll(filter="misaligned = true", page_size=100).points}
        assert flagged == {ids[row] for row in np.flatnonzero(found.misaligned)}
        assert 0 < len(flagged) < 80
        wide = {p.id for p in points.scroll(filter="bias > 0.5", page_size=100).points}
        assert wide == {ids[row] for row in np.flatnonzero(found.parts.bias > 0.5)}

    def test_a_second_diagnosis_stands_beside_the_first(self, points: Any) -> None:
        z, labels = logits_of(1)
        ids = [f"s{i}" for i in range(80)]
        found = run(Ensemble.of_logits(z, labels, ids), FEW)
        found.write_fields(points)
        found.write_fields(points, "wide_")
        payload = points.get(["s3"])[0].payload
        assert payload["wide_bias"] == payload["bias"]

    def test_nothing_is_written_where_a_point_is_not_there(self, points: Any) -> None:
        """Rows in place of ids are the likely mistake."""
        z, labels = logits_of(1)
        ids = [f"s{i}" for i in range(79)]
        found = run(Ensemble.of_logits(z, labels, [*ids, "other"]), FEW)
        with pytest.raises(NotFound, match="none with 'other'"):
            found.write_fields(points)
        assert all("bias" not in p.payload for p in points.get(ids))


class TestPlot:
    def test_it_is_drawn(self, tmp_path: Path) -> None:
        """Into a file, three panels with lines, and every sample in the first two."""
        found = run(by_chance(1), FEW)
        figure = plot_diagnosis(found, tmp_path / "a.svg")
        assert (tmp_path / "a.svg").stat().st_size > 10_000
        assert [bool(axes.lines) for axes in figure.axes] == [True] * 3
        dots = [
            sum(np.asarray(one.get_offsets()).shape[0] for one in axes.collections)
            for axes in figure.axes
        ]
        assert found.fits["all"] is not None
        assert dots == [found.fits["all"].n, len(found), 0]

    def test_nothing_to_draw_is_said(self, tmp_path: Path) -> None:
        found = run(Ensemble.of_probabilities(np.full((4, 3, 2), 0.5), [0, 0, 1]), FEW)
        with pytest.raises(InvalidArgument, match="there are none"):
            plot_diagnosis(found, tmp_path / "a.png")
