"""Weighted k-center against brute force, and what those who choose from collections rely on.

brute.py -> [test_select.py]; test_select_parts.py has several machines
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import InvalidArgument
from soardb.pipelines.select import SelectConfig, read, run, softmax, votes, weights_of
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.space import checked, space_of
from soardb.pipelines.select.wkc import Exactly, filled
from tests.pipelines.brute import Instance, instance

CLOSE = 1 + 1e-3  # keys are float32


def config_of(given: Instance, **options: Any) -> SelectConfig:
    return SelectConfig(
        given.k,
        radius_weight=given.radius_weight,
        normalize=False,
        metric=given.metric,
        threads=1,
        **options,
    )


def plain_gonzalez(distances: Any, k: int) -> list[int]:
    chosen, near = [0], distances[:, 0].copy()
    while len(chosen) < k:
        near[chosen] = -1
        chosen.append(int(near.argmax()))
        near = np.minimum(near, distances[:, chosen[-1]])
    return chosen


class TestAgainstBruteForce:
    @pytest.mark.parametrize("first", range(0, 400, 40))
    def test_within_three_times_the_best(self, first: int) -> None:
        """Of 400 instances; with every radius tried, the factor is 3."""
        for seed in range(first, first + 40):
            given = instance(seed)
            best = given.value(given.best())
            found = run(given.points, config_of(given), weights=given.weights)
            certificate = found.certificate
            assert len(set(found.ids)) == given.k
            value = given.value(found.rows.tolist())
            assert value == pytest.approx(certificate.objective, rel=1e-3, abs=1e-5), seed
            assert value <= 3 * best * CLOSE + 1e-5, seed
            assert certificate.lower_bound <= best * CLOSE + 1e-5, seed
            assert certificate.ratio * CLOSE >= 1, seed
            assert certificate.factor == 3

    @pytest.mark.parametrize("first", range(0, 300, 60))
    def test_at_the_best_radius_neither_term_is_lost(self, first: int) -> None:
        """(3, 1): at most three times the radius of the best choice, and no more weight."""
        for seed in range(first, first + 60):
            given = instance(seed)
            best = given.best()
            order = np.lexsort((np.arange(len(given.weights)), given.weights))
            space = space_of(checked(given.points, given.metric), order, given.metric)
            radius = math.hypot(given.radius(best) * (1 + 1e-6), space.resolution)
            found = Exactly(space).separated(radius, given.k)
            assert found is not None, seed
            chosen = order[filled(found[1], given.k)]
            assert given.radius(chosen) <= 3 * radius * CLOSE + 1e-6, seed
            least = given.weights[list(best)].sum()
            assert given.weights[chosen].sum() <= least + 1e-9, seed

    def test_without_weights_it_is_k_center(self) -> None:
        """Within 3 of the best radius; Gonzalez within 2."""
        for seed in range(100):
            given = replace(instance(seed), radius_weight=1.0)
            weights = np.zeros(len(given.weights))
            found = run(given.points, config_of(given), weights=weights)
            plain = run(given.points, config_of(given, method="gonzalez"), weights=weights)
            best = given.k_center()
            assert found.certificate.radius <= 3 * best * CLOSE + 1e-5
            assert plain.certificate.radius <= 2 * best * CLOSE + 1e-5
            assert found.certificate.lower_bound <= best * CLOSE + 1e-5

    def test_without_a_radius_it_is_margin_sampling(self) -> None:
        """And ever closer to it as lambda falls."""
        for seed in range(50):
            given = replace(instance(seed), radius_weight=0.0)
            found = run(given.points, config_of(given), weights=given.weights)
            margin = run(given.points, config_of(given, method="margin"), weights=given.weights)
            assert margin.weights.sum() == found.weights.sum()
            assert found.weights.sum() == np.sort(given.weights)[: given.k].sum()
            near = run(
                given.points, replace(config_of(given), radius_weight=1e-9), weights=given.weights
            )
            assert near.weights.sum() == pytest.approx(found.weights.sum(), abs=1e-6)


class TestGonzalez:
    @pytest.mark.parametrize("n", [5, 300, 6000])
    def test_its_centres_are_those_of_the_plain_loop(self, n: int) -> None:
        """Though it reads a pool of points and not all."""
        rng = np.random.default_rng(1)
        points = rng.normal(size=(n, 3)).astype(np.float32)
        space = space_of(checked(points, "l2"), np.arange(n), "l2")
        keys = space.keys(slice(0, n), space.points(np.arange(n)))
        k = min(n // 2, 400)
        centres, radius = gonzalez(space, k)
        assert centres.tolist() == plain_gonzalez(keys, k)
        assert radius == pytest.approx(np.sqrt(keys[:, centres].min(axis=1).max()), abs=5e-3)

    def test_of_equally_far_points_the_first_is_taken_and_each_once(self) -> None:
        """Whole numbers as distances, of which many are equal, and points that repeat."""
        rng = np.random.default_rng(1)
        places = rng.integers(0, 9, 500)
        distances = np.abs(places[:, None] - places[None]).astype(np.float32)
        space = space_of(checked(distances, "distances"), np.arange(500), "distances")
        centres, radius = gonzalez(space, 60)
        assert centres.tolist() == plain_gonzalez(distances, 60)
        assert len(set(centres.tolist())) == 60
        assert radius == 0


class TestGrid:
    def test_many_points_are_within_the_factor_of_the_certificate(self) -> None:
        """Above 64 points guesses are a grid; the ratio of the certificate is proof of its own."""
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(40, 16)) * 8
        points = (centres[rng.integers(0, 40, 5000)] + rng.normal(size=(5000, 16))).astype("f")
        weights = rng.random(5000)
        found = run(points, SelectConfig(60, threads=2), weights=weights)
        certificate = found.certificate
        assert certificate.factor == pytest.approx(3.3)
        assert 1 <= certificate.ratio <= 3.3
        distances = np.linalg.norm(points[:, None] - points[found.rows][None], axis=2)
        assert certificate.radius == pytest.approx(distances.min(axis=1).max(), rel=1e-4)
        assert certificate.weight == pytest.approx(weights[found.rows].sum())
        for method in ("gonzalez", "margin", "random", "gist", "facility"):
            other = run(points, SelectConfig(60, method=method, threads=2), weights=weights)
            assert len(set(other.ids)) == 60
            # Centres and cheapest points are tried by it, so they can be no better; of others the
            # best can be better by the factor alone.
            most = 1.0 if method in ("gonzalez", "margin") else 3.3
            assert certificate.objective <= most * other.certificate.objective * CLOSE, method
            assert other.certificate.lower_bound <= certificate.objective

    @pytest.mark.parametrize("metric", ["l2", "cosine"])
    def test_by_the_index_it_is_about_as_good(self, metric: str) -> None:
        """It promises nothing, and is measured on all points all the same."""
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(200, 16)) * 4
        points = (centres[rng.integers(0, 200, 8000)] + rng.normal(size=(8000, 16))).astype("f")
        weights = rng.random(8000)
        config = SelectConfig(1000, metric=metric, threads=2)
        plain = run(points, config, weights=weights).certificate
        found = run(points, replace(config, index=True), weights=weights)
        assert found.certificate.factor is None
        assert found.certificate.objective <= plain.objective * 1.1
        again = run(points, replace(config, index=True, method="wkc"), weights=weights)
        assert again.ids == found.ids

    def test_an_outlier_makes_the_radius_and_not_the_99th_percentile(self) -> None:
        """One point in a thousand, far away: it is chosen, as the radius is the largest."""
        rng = np.random.default_rng(1)
        points = rng.normal(size=(1000, 4)).astype(np.float32)
        points[17] = 1000
        found = run(points, SelectConfig(5, radius_weight=10.0), weights=np.ones(1000))
        assert 17 in found.ids
        alone = run(points, SelectConfig(5, method="margin"), weights=np.arange(1000.0))
        assert alone.certificate.radius > 1000
        assert alone.certificate.radius_p99 < 10


class TestFedWithAnything:
    def test_points_that_repeat(self) -> None:
        """Fewer places than points wanted: the radius is 0, and the points are still distinct."""
        rng = np.random.default_rng(1)
        points = np.repeat(rng.normal(size=(3, 5)), 20, axis=0).astype(np.float32)
        config = SelectConfig(10, radius_weight=1e6)
        found = run(points, config, weights=np.arange(60.0))
        assert len(set(found.ids)) == 10
        assert found.certificate.radius == 0
        big = run(np.repeat(points, 20, axis=0), config, weights=np.arange(1200.0))
        assert big.certificate.radius == 0
        assert big.certificate.factor == pytest.approx(3.3)

    @pytest.mark.parametrize("k", [1, 30])
    def test_all_points_or_one(self, k: int) -> None:
        """k = n leaves no radius."""
        rng = np.random.default_rng(1)
        points = rng.normal(size=(30, 4)).astype(np.float32)
        found = run(points, SelectConfig(k), weights=np.zeros(30))
        assert len(set(found.ids)) == k
        assert (found.certificate.radius == 0) == (k == 30)

    @pytest.mark.parametrize(
        ("options", "given", "message"),
        [
            ({"k": 31}, {}, "at most 30 points, got 31"),
            ({"k": 0}, {}, "k"),
            ({"k": 3}, {"weights": [1.0] * 29 + [np.nan]}, "got nan for point 29"),
            ({"k": 3}, {"weights": [1.0] * 29 + [-1.0]}, "at least 0, got -1.0 for point 29"),
            ({"k": 3}, {"weights": [1.0] * 29}, "a weight for each of 30"),
            ({"k": 3}, {"weights": ["a"] * 30}, "weights as an array of numbers"),
            ({"k": 3}, {"weights": [1e308] * 30}, "whose sum is at most 1e"),
            ({"k": 3}, {"logits": "abc"}, "logits as an array of numbers"),
            ({"k": 3}, {"probabilities": [[1.0], [0.5, 0.5]]}, "probabilities as an array"),
            ({"k": 3}, {"probabilities": np.ones((30, 3))}, "sum to 1"),
            ({"k": 3}, {"probabilities": np.full((29, 2), 0.5)}, "each of 30 points"),
            ({"k": 3}, {"logits": np.full((30, 2), np.inf)}, "finite logits"),
            ({"k": 3}, {"weights": np.ones(30), "logits": np.ones((30, 2))}, "one of"),
            ({"k": 3, "metric": "dot"}, {}, "a true metric"),
            ({"k": 3, "metric": "distances"}, {}, r"\(n, n\) matrix"),
            ({"k": 3, "method": "best"}, {}, "method one of"),
            ({"k": 3, "eps": 0.0}, {}, "eps above 0"),
            ({"k": 3, "radius_weight": -1.0}, {}, "radius_weight of at least 0"),
            ({"k": 3, "label_field": "x"}, {}, "a collection with label_field"),
            ({"k": 3, "machines": 2, "method": "gist"}, {}, "method 'wkc' with machines"),
            ({"k": 3, "machines": 2, "index": True}, {}, "on one machine with index"),
            ({"k": 3, "machines": 2, "crew": "x"}, {}, "crew one of"),
            ({"k": 3, "uncertainty": "x"}, {}, "uncertainty one of"),
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(
        self, options: dict[str, Any], given: dict[str, Any], message: str
    ) -> None:
        """Naming what was expected and what came."""
        with pytest.raises(InvalidArgument, match=message):
            run(np.ones((30, 4), np.float32), SelectConfig(**options), **given)

    @pytest.mark.parametrize(
        "points",
        [np.zeros((0, 3)), np.full((3, 3), np.nan), np.zeros(3), [["a"]], "points", {"a": 1}],
        ids=["none", "nan", "flat", "text", "a string", "a dict"],
    )
    def test_points_that_are_none(self, points: Any) -> None:
        """Before anything is computed."""
        with pytest.raises(InvalidArgument):
            run(points, SelectConfig(1))

    def test_a_matrix_that_is_no_metric(self) -> None:
        """Symmetric, zero on the diagonal, not negative."""
        for bad in ([[0, 1], [2, 0]], [[1, 1], [1, 0]], [[0, -1], [-1, 0]]):
            with pytest.raises(InvalidArgument, match="distances"):
                run(np.array(bad, float), SelectConfig(1, metric="distances"))


class TestUncertainty:
    def test_weights_of_probabilities(self) -> None:
        """0 where classes are as likely, 1 where one is certain, for every kind."""
        p = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [0.6, 0.3, 0.1]])
        assert weights_of(p, "margin") == pytest.approx([1, 0, 0, 0.3])
        assert weights_of(p, "least_confidence") == pytest.approx([1, 0, 0.25, 0.4])
        entropy = weights_of(p, "entropy")
        assert entropy[:2] == pytest.approx([1, 0])
        assert 0 < entropy[3] < entropy[2] < 1
        logits = np.log(np.maximum(p, 1e-9))
        assert softmax(logits + 5) == pytest.approx(p, abs=1e-6)

    def test_a_point_that_neighbours_disagree_on_weighs_little(self, labelled: Any) -> None:
        """Votes leave the point itself out: between two heaps they are split."""
        ids = [p.id for p in labelled.scroll(page_size=1000).points]
        points = labelled.get(ids, with_vectors=True)
        vectors = np.stack([p.vector for p in points])
        labels = [p.payload["kind"] for p in points]
        shares = votes(labelled, ids, vectors, labels, 8)
        assert shares.shape == (len(ids), 2)
        assert shares.sum(axis=1) == pytest.approx(np.ones(len(ids)))
        weight = weights_of(shares)
        between = np.abs(vectors[:, 0]) < 1
        assert weight[between].mean() < 0.75
        assert weight[np.abs(vectors[:, 0]) > 3].mean() > 0.95


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Any]:
    """Two heaps that touch, labelled by the side that a point is on."""
    rng = np.random.default_rng(4)
    side = rng.integers(0, 2, 600)
    vectors = rng.normal(size=(600, 6)).astype(np.float32)
    vectors[:, 0] += np.where(side == 1, 2, -2)
    with soardb.connect(tmp_path / "db") as database:
        collection = database.create_collection(
            "c", 6, "l2", schema={"kind": "keyword", "n": "int", "picked": "bool", "cost": "float"}
        )
        collection.upsert(
            [f"p{i}" for i in range(600)],
            vectors,
            [
                {"kind": ["left", "right"][s], "n": i, "cost": i / 600}
                for i, s in enumerate(side.tolist())
            ],
        )
        yield collection


class TestCollections:
    def test_by_votes_of_its_own_labels(self, labelled: Any) -> None:
        """Points between the heaps are chosen, and far ones that cover."""
        config = SelectConfig(30, label_field="kind", radius_weight=0.1)
        found = run(labelled, config)
        assert len(set(found.ids)) == 30
        assert set(found.ids) <= {f"p{i}" for i in range(600)}
        mean = found.certificate.weight / 30
        assert mean < run(labelled, replace(config, method="random")).certificate.weight / 30
        assert found.config.metric == "l2"

    def test_by_a_field_and_under_a_filter(self, labelled: Any) -> None:
        """Only what matches is chosen, and is covered."""
        config = SelectConfig(5, weight_field="cost", filter="n >= 300", radius_weight=0.0)
        assert run(labelled, config).ids == [f"p{i}" for i in range(300, 305)]
        with pytest.raises(InvalidArgument, match="none match"):
            run(labelled, replace(config, filter="n > 9999"))
        with pytest.raises(InvalidArgument, match="a number in 'kind'"):
            run(labelled, replace(config, weight_field="kind"))
        with pytest.raises(InvalidArgument, match="at least two classes"):
            run(labelled, SelectConfig(5, label_field="absent"))

    def test_is_written_back_as_a_field_or_as_a_collection(
        self, labelled: Any, tmp_path: Path
    ) -> None:
        """The field of one that was chosen before is dropped."""
        first = run(labelled, SelectConfig(9, method="random", seed=1))
        assert first.write_field(labelled, "picked") == 9
        assert labelled.count("picked = true") == 9
        second = run(labelled, SelectConfig(7, method="random", seed=2))
        assert second.write_field(labelled, "picked") == 7
        picked = labelled.scroll(filter="picked = true").points
        assert {p.id for p in picked} == set(second.ids)
        assert second.write_field(labelled, "undeclared") == 7
        assert first.write_field(labelled, "undeclared") == 9
        pages = labelled.scroll(page_size=1000).points
        assert sum("undeclared" in p.payload for p in pages) == 9

        table = second.to_arrow()
        assert table.column("id").to_pylist() == second.ids
        assert float(table.schema.metadata[b"radius"]) == second.certificate.radius
        with soardb.connect(tmp_path / "other") as database:
            made = database.create_collection("few", 6, "l2", schema=labelled.schema)
            assert second.write_collection(labelled, made) == 7
            assert {p.id for p in made.scroll().points} == set(second.ids)
            labelled.delete([second.ids[0]])
            with pytest.raises(InvalidArgument, match="1 are not; select again"):
                second.write_collection(labelled, made)

    def test_is_read_once_for_several_choices(self, labelled: Any) -> None:
        """What read() made is chosen from as the collection itself is."""
        config = SelectConfig(20, label_field="kind")
        source = read(labelled, config)
        once = run(source, replace(config, radius_weight=3.0))
        assert once.ids == run(labelled, replace(config, radius_weight=3.0)).ids
        with pytest.raises(InvalidArgument, match="no weights beside a source"):
            run(source, config, weights=np.zeros(600))


class TestProgram:
    def test_select_chooses_writes_and_draws(self, labelled: Any, tmp_path: Path) -> None:
        """soardb select, with everything that it can leave behind."""
        with soardb.connect(tmp_path / "other") as database:
            points = labelled.scroll(page_size=1000, with_vectors=True).points
            made = database.create_collection("c", 6, "l2", schema=labelled.schema)
            made.upsert(
                [p.id for p in points],
                np.stack([p.vector for p in points]),
                [dict(p.payload) for p in points],
            )
        directory = str(tmp_path / "other")
        files = tmp_path / "dots.png", tmp_path / "curve.svg"
        ended = CliRunner().invoke(
            app,
            [
                *("select", directory, "c", "-k", "12", "--label-field", "kind", "--json"),
                *("--write-field", "picked", "--to", "few"),
                *("--plot", str(files[0]), "--tradeoff", str(files[1])),
            ],
        )
        assert ended.exit_code == 0, ended.output
        told = json.loads(ended.stdout)
        assert len(told["ids"]) == 12
        assert told["certificate"]["ratio"] >= 1
        assert all(file.stat().st_size > 1000 for file in files)
        with soardb.connect(directory) as database:
            assert database.get_collection("few").count() == 12
            assert database.get_collection("c").count("picked = true") == 12
        shown = CliRunner().invoke(app, ["select", directory, "c", "-k", "3", "--method", "random"])
        assert shown.exit_code == 0
        assert "lower bound" in shown.stdout
        again = CliRunner().invoke(app, ["select", directory, "c", "-k", "3", "--to", "few"])
        assert isinstance(again.exception, InvalidArgument)
