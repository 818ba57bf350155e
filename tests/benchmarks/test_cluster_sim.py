"""The simulation of clusters: its queues against closed forms, its bytes against their sums.

benchmarks/cluster_queue.py, cluster_model.py, cluster_plan.py, cluster_sim.py
    -> [test_cluster_sim.py]
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cluster_model, cluster_sim
from benchmarks.cluster_model import Calibration, Power, asked_of_shards, messages_of
from benchmarks.cluster_plan import (
    MOST_BUSY,
    Cluster,
    Prices,
    Workload,
    costs_of,
    plan,
    smallest,
    validate,
)
from benchmarks.cluster_queue import F64, Costs, Lognormal, gathered, simulate, waits
from soardb.errors import InvalidArgument


def nothing(rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
    return np.zeros(shape)


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
    return np.asarray(rng.exponential(1.0, shape))


def always(rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
    return np.ones(shape)


def run(service: Any, *, shards: int = 1, cores: int = 1, rate: float, calls: int = 60_000) -> F64:
    costs = Costs(0.0, 0.0, 0.0, nothing, service)
    return simulate(
        costs, hosts=shards, shards_per_host=1, cores=cores, drivers=1, rate=rate, calls=calls,
        seed=3,
    )  # fmt: skip


class TestQueues:
    @pytest.mark.parametrize("load", [0.3, 0.6])
    def test_one_exponential_server(self, load: float) -> None:
        """M/M/1: the time in the system is exponential with mean 1 / (1 - load)."""
        found = run(exponential, rate=load)
        assert found.mean() == pytest.approx(1 / (1 - load), rel=0.04)
        assert np.quantile(found, 0.99) == pytest.approx(math.log(100) / (1 - load), rel=0.08)

    @pytest.mark.parametrize("load", [0.3, 0.6])
    def test_one_constant_server(self, load: float) -> None:
        """M/D/1: Pollaczek and Khinchine, load / (2 (1 - load)) of waiting."""
        assert run(always, rate=load).mean() - 1 == pytest.approx(load / 2 / (1 - load), rel=0.05)

    def test_several_servers(self) -> None:
        """M/M/c: Erlang's C formula."""
        c, offered = 4, 2.8
        tail = offered**c / math.factorial(c) * c / (c - offered)
        chance = tail / (sum(offered**i / math.factorial(i) for i in range(c)) + tail)
        found = run(exponential, rate=offered, cores=c)
        assert found.mean() - 1 == pytest.approx(chance / (c - offered), rel=0.08)

    @pytest.mark.parametrize("shards", [1, 3, 40])
    def test_the_slowest_of_many(self, shards: int) -> None:
        """Idle shards of exponential times: the mean is the harmonic number."""
        found = run(exponential, shards=shards, rate=0.0, calls=20_000)
        assert found.mean() == pytest.approx(sum(1 / i for i in range(1, shards + 1)), rel=0.02)
        for q in (0.5, 0.99):
            expected = -math.log(1 - q ** (1 / shards))
            assert np.quantile(found, q) == pytest.approx(expected, rel=0.05)

    def test_shards_of_one_host_share_its_cores(self) -> None:
        """Eight messages of a second each on two cores take four."""
        costs = Costs(0.0, 0.0, 0.0, nothing, always)
        shape: dict[str, Any] = {"drivers": 1, "rate": 0.0, "calls": 20, "seed": 0}
        found = simulate(costs, hosts=1, shards_per_host=8, cores=2, **shape)
        assert found.tolist() == [4.0] * 20

    def test_a_driver_sends_and_takes_one_after_the_other(self) -> None:
        """Messages leave in turn; the last answer is taken after all others."""
        costs = Costs(0.25, 0.5, 2.0, nothing, nothing)
        shape: dict[str, Any] = {"drivers": 1, "rate": 0.0, "calls": 10, "seed": 0}
        found = simulate(costs, hosts=4, shards_per_host=1, cores=1, **shape)
        assert found.tolist() == pytest.approx([2.0 + 4 * 0.25 + 4 * 0.5] * 10)
        assert costs.driver_s(4) == pytest.approx(found[0])

    def test_answers_that_come_late_are_taken_at_once(self) -> None:
        """Only those that come together wait for each other."""
        answers = np.array([[0.0, 0.0, 0.0], [0.0, 10.0, 20.0], [5.0, 5.2, 0.0]])
        assert gathered(answers, 1.0).tolist() == [3.0, 21.0, 7.0]

    def test_drivers_wait_for_themselves_alone(self) -> None:
        """Two servers, each with its own line."""
        arrivals = np.array([0.0, 0.1, 0.2, 0.3])
        found = waits(arrivals, np.ones(4), np.array([0, 1, 0, 1]), 2)
        assert found.tolist() == pytest.approx([0.0, 0.0, 0.8, 0.8])

    def test_a_sum_of_lognormals_keeps_mean_and_variance(self) -> None:
        """A batch varies less than its queries."""
        one, rng = Lognormal(2.0, 0.5), np.random.default_rng(0)
        drawn = one.of_sum(16)(rng, (200_000,))
        assert drawn.mean() == pytest.approx(32.0, rel=0.01)
        assert drawn.var() == pytest.approx(16 * 4.0 * math.expm1(0.25), rel=0.03)

    def test_a_seed_is_an_answer(self) -> None:
        """Same seed, same latencies."""
        assert np.array_equal(run(exponential, rate=0.5), run(exponential, rate=0.5))


# ---------------------------------------------------------------- calibration


def calls_report() -> dict[str, Any]:
    """Of a Ray whose messages cost round numbers, in milliseconds, on two cores."""
    ways = []
    for what, search, payload in (("floor", 0.0, 0.0), ("real", 0.01, 0.0), ("paid", 0.01, 0.003)):
        for shards, c in ((1, 10), (8, 5)):
            for batch in (1, 1024):
                driver = 0.5 + shards * (0.1 + 0.0002 * batch * c)
                of_shards = shards * (0.2 + (0.002 + search + c * payload) * batch)
                of_shards += shards * (0.04 if payload else 0.0)
                latency = driver + of_shards / min(shards, 2) + 0.3
                ways.append(
                    {
                        "what": what,
                        "shards": shards,
                        "batch": batch,
                        "c": c,
                        "cpu_ms_driver": driver,
                        "cpu_ms_shards": of_shards,
                        "ms": {"0.1": latency, "0.5": latency, "0.9": latency},
                    }
                )
    messages = [
        {
            "batch": b,
            "limit": c,
            "request_bytes": 200 + 384 * b,
            "reply_bytes": 300 + b * (8 + 12 * c),
        }
        for b in (1, 64)
        for c in (1, 10)
    ]
    return {
        "commit": "none",
        "setup": {"d": 96, "k": 10, "target_recall": 0.95},
        "ways": ways,
        "messages": messages,
        "points_of_shards": [40_000] * 8,
        "row_store": {"bytes_a_row_beyond": 30.0},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    for name in (
        "scale-96.json",
        "precision-wordnet-minilm-384.json",
        "peers-wordnet-minilm-384-angular.json",
    ):
        shutil.copy(cluster_model.RESULTS / name, made / name)
    (made / "cluster-calls.json").write_text(json.dumps(calls_report()), "utf-8")
    return made


@pytest.fixture(scope="module")
def known(folder: Path) -> Calibration:
    return cluster_model.read_calibration(folder, header=1000.0)


class TestCalibration:
    def test_lines_are_found_again(self, known: Calibration) -> None:
        """Least squares of exact lines gives their coefficients."""
        talk = messages_of(calls_report()["ways"])
        assert talk == known.messages
        assert talk.driver_around == pytest.approx(0.5e-3)
        assert talk.driver_message == pytest.approx(0.1e-3)
        assert talk.driver_hit == pytest.approx(0.2e-6)
        assert talk.shard_message == pytest.approx(0.2e-3)
        assert talk.shard_query == pytest.approx(2e-6)
        assert talk.shard_payload == pytest.approx(3e-6)
        assert talk.shard_reading == pytest.approx(0.04e-3)
        assert talk.idle_s == pytest.approx(0.3e-3)
        assert known.wire.request(64, 96) == pytest.approx(1000 + 200 + 384 * 64)
        assert known.wire.answer(64, 5, 7.0) == pytest.approx(1300 + 64 * (8 + 5 * 19.0))

    def test_costs_are_those_measured_where_they_were(self, known: Calibration) -> None:
        """On the points themselves; between them monotone, beyond them a power."""
        rows = [row for row in known.scale["rows"] if row["nlist"]]
        curve = known.query_us(0.95)
        assert curve.n == tuple(row["n"] for row in rows)
        assert [curve.at(n) for n in curve.n] == pytest.approx(list(curve.cost))
        assert curve.cost == pytest.approx(known.scale["at_recall"]["cpu_us"])
        assert curve.at(1e9) / curve.at(1e8) == pytest.approx(10**curve.exponent)
        assert curve.beyond(1e8) == pytest.approx(10.0)
        assert curve.beyond(1e6) == 1.0

    def test_memory_is_that_of_the_index_measured(self, known: Calibration) -> None:
        """By part, at the largest size, which the model must give back."""
        row = known.scale["rows"][-1]
        found = known.memory_bytes(row["n"], 96, "float32")
        assert sum(found.values()) == pytest.approx(sum(row["index_bytes"].values()), rel=1e-3)
        smaller = known.memory_bytes(row["n"], 96, "int8")
        assert sum(found.values()) - sum(smaller.values()) == pytest.approx(4 * 96 * row["n"])

    def test_building_is_what_was_measured(self, known: Calibration) -> None:
        row = known.scale["rows"][-1]
        expected = row["train_cpu_s"] + row["add_cpu_s"]
        assert known.build_cpu_s(row["n"], 96) == pytest.approx(expected)

    def test_what_was_not_measured_is_said(self, known: Calibration, tmp_path: Path) -> None:
        """A recall out of reach, one size, no measurements at all."""
        with pytest.raises(InvalidArgument, match="the most was"):
            known.query_us(0.99999)
        with pytest.raises(InvalidArgument, match="two measured sizes"):
            Power((10.0,), (1.0,))
        with pytest.raises(InvalidArgument, match="--measure"):
            cluster_model.read_calibration(tmp_path)

    def test_shards_are_asked_as_the_engine_asks_them(self) -> None:
        """The same c, and the same share of the loss for the merge."""
        pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[test-ray]'")
        from soardb.cluster import searching

        assert cluster_model.MERGE_SHARE == searching._MERGE_SHARE
        for shards in (2, 16, 300):
            ours, recall = asked_of_shards(2**24, 10, shards, 0.95)
            theirs = searching.planned(2**24, 10, shards, 1 - searching._MERGE_SHARE * 0.05)
            assert ours.c == theirs.c
            assert recall == pytest.approx(0.95 / theirs.expected_recall)


class TestPlans:
    WORK = Workload(vectors=1e8, dim=96, qps=500.0)

    def test_bytes_are_conserved(self, known: Calibration) -> None:
        """What travels is what every shard is sent and answers, no more and no less."""
        for batch in (1, 32):
            for shards in (1, 7, 64):
                work = replace(self.WORK, batch=batch)
                row = plan(work, Cluster(shards), known, Prices(), calls=200)
                call = 0.0
                for _ in range(shards):
                    call += known.wire.request(batch, 96)
                    call += known.wire.answer(batch, row["c"], work.payload_bytes)
                assert row["bytes_on_the_wire_a_query"] * batch == pytest.approx(call)
                richer = replace(work, payload_bytes=work.payload_bytes + 50)
                more = plan(richer, Cluster(shards), known, Prices(), calls=200)
                added = more["bytes_on_the_wire_a_query"] - row["bytes_on_the_wire_a_query"]
                assert added == pytest.approx(50.0 * shards * row["c"])

    def test_a_query_costs_what_its_parts_do(self, known: Calibration) -> None:
        """Without chance or load: messages one way, search, answers."""
        calm = Cluster(4, straggler=0.0, network_ms=0.0, gbit_s=1e6)
        costs, found = costs_of(self.WORK, calm, replace(known, sigma=0.0))
        (one,) = simulate(
            costs, hosts=4, shards_per_host=1, cores=1, drivers=1, rate=0.0, calls=1, seed=0
        )
        talk = known.messages
        c = found["c"]
        each = talk.driver_message + c * talk.driver_hit
        service = talk.shard_message + talk.shard_query + found["search_us_a_query"] / 1e6
        service += talk.shard_reading + c * talk.shard_payload
        # The last message leaves after all others, so its answer is the last one, too.
        expected = talk.driver_around + 4 * each / 2 + talk.idle_s + service + each / 2
        assert one == pytest.approx(expected, rel=1e-3)

    def test_load_is_work_over_cores(self, known: Calibration) -> None:
        """And where there is more of it than cores there are no latencies."""
        row = plan(self.WORK, Cluster(4, cores=3), known, Prices(), calls=200)
        assert row["cores_in_use"] == pytest.approx(
            500 * row["cpu_ms_a_query"]["shards"] / 1e3 / (4 * 3)
        )
        over = plan(replace(self.WORK, qps=1e6), Cluster(4), known, Prices(), calls=200)
        assert over["cores_in_use"] > 1
        assert over["latency_ms"]["p99"] is None

    def test_more_load_and_more_stragglers_are_slower(self, known: Calibration) -> None:
        """The tail knows it first."""
        calm = plan(self.WORK, Cluster(16, cores=1), known, Prices(), calls=4000)
        busy = plan(replace(self.WORK, qps=2000), Cluster(16, cores=1), known, Prices(), calls=4000)
        late = plan(self.WORK, Cluster(16, cores=1, straggler=0.02), known, Prices(), calls=4000)
        assert busy["latency_ms"]["p99"] > calm["latency_ms"]["p99"]
        assert late["latency_ms"]["p99"] > calm["latency_ms"]["p99"] + 5
        assert calm["latency_ms"]["p50"] < calm["latency_ms"]["p99"] < calm["latency_ms"]["p99.9"]

    def test_prices_are_linear(self, known: Calibration) -> None:
        """Twice the prices, twice the price; nothing is free of them."""
        once = plan(self.WORK, Cluster(4), known, Prices(), calls=200)
        twice = plan(self.WORK, Cluster(4), known, Prices(0.1, 0.012, 0.2), calls=200)
        free = plan(self.WORK, Cluster(4), known, Prices(0, 0, 0), calls=200)
        assert twice["price_an_hour"] == pytest.approx(2 * once["price_an_hour"])
        assert free["price_an_hour"] == 0

    def test_the_smallest_does_and_one_less_does_not(self, known: Calibration) -> None:
        """Each limit in turn is the one that counts."""
        cases: list[tuple[Workload, Cluster, float]] = [
            (self.WORK, Cluster(host_gib=16), 100.0),  # memory
            (replace(self.WORK, qps=3000), Cluster(cores=1), 1000.0),  # load
            (replace(self.WORK, qps=1), Cluster(straggler=0.0), 2.3),  # latency
        ]
        for work, cluster, p99_ms in cases:
            found, tried = smallest(work, cluster, known, Prices(), p99_ms, calls=500)
            assert found is not None
            assert found["latency_ms"]["p99"] <= p99_ms
            assert found["cores_in_use"] <= MOST_BUSY
            less = next(row for row in tried if row["shards"] == found["shards"] - 1)
            assert (
                not less["fits_in_memory"]
                or less["cores_in_use"] > MOST_BUSY
                or less["latency_ms"]["p99"] > p99_ms
            )

    def test_validation_is_beside_what_was_measured(self, known: Calibration) -> None:
        """A cluster that is what the model says is foretold: its messages, on two cores."""
        report = calls_report()
        for way in report["ways"]:
            if way["what"] != "floor":
                recall = asked_of_shards(40_000 * way["shards"], 10, way["shards"], 0.95)[1]
                searched = known.query_us(recall).at(40_000) / 1e3 - 0.01
                way["cpu_ms_shards"] += way["shards"] * way["batch"] * searched
                way["ms"]["0.5"] += way["shards"] * way["batch"] * searched / min(way["shards"], 2)
        rows = validate(known, report)
        assert [(row["what"], row["shards"], row["batch"]) for row in rows] == [
            (what, shards, batch)
            for what in ("real", "paid")
            for shards in (1, 8)
            for batch in (1, 1024)
        ]
        for row in rows:
            assert row["foretold_cpu_ms"] == pytest.approx(row["measured_cpu_ms"], rel=0.12)
            assert abs(row["error"]) < 0.35


class TestCommandLine:
    def test_it_answers_a_question(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With the number of shards, why not fewer, and the assumed prices."""
        asked = [
            "--vectors",
            "1e9",
            "--dim",
            "768",
            "--qps",
            "1000",
            "--p99-ms",
            "50",
            "--target-recall",
            "0.95",
            "--calls",
            "2000",
        ]
        assert cluster_sim.main([*asked, "--out", str(folder)]) == 0
        said = capsys.readouterr().out
        assert "shards of" in said
        assert "p99.9" in said
        assert "(assumed)" in said
        assert "GiB a host" in said.splitlines()[-1]

    def test_it_says_that_nothing_does(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ["--vectors", "1e9", "--qps", "1000", "--p99-ms", "0.01", "--calls", "1000"]
        assert cluster_sim.main([*asked, "--out", str(folder)]) == 1
        assert "no number of shards" in capsys.readouterr().out
        over = ["--vectors", "1e9", "--qps", "1e6", "--shards", "3"]
        assert cluster_sim.main([*over, "--out", str(folder)]) == 1
        assert "overloaded" in capsys.readouterr().out

    @pytest.mark.parametrize("wrong", ["--qps 0", "--target-recall 0.99999", "--cores -1"])
    def test_it_refuses_what_cannot_be(
        self, folder: Path, wrong: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            cluster_sim.main(["--vectors", "1e9", *wrong.split(), "--out", str(folder)])
        assert "expected" in capsys.readouterr().err

    def test_the_report_has_its_assumptions(self, folder: Path) -> None:
        """Every plan, the tail by fan-out, the validation, three figures."""
        pytest.importorskip("matplotlib")
        assert cluster_sim.main(["--calls", "200", "--out", str(folder)]) == 0
        report = json.loads((folder / "cluster-sim.json").read_text("utf-8"))
        assert report["assumptions"] == list(cluster_model.ASSUMPTIONS)
        assert {(row["vectors"], row["shards"]) for row in report["plans"]} == {
            (vectors, shards) for vectors in (1e9, 1e10, 1e11) for shards in (1, 10, 100, 1000)
        }
        assert report["validation"]
        for name in ("latency", "cost", "memory"):
            assert (folder / f"cluster-sim-{name}.png").stat().st_size > 0
