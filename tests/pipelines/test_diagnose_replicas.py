"""The bundled trainer: many networks at once, each as it would be alone, and asked fairly.

[test_diagnose_replicas.py] -> soardb/pipelines/diagnose/training.py, replicas.py, source.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import soardb
from soardb.cli.commands import app
from soardb.errors import InvalidArgument, NotFound, Unavailable
from soardb.pipelines.diagnose import (
    RANDOMNESS,
    DiagnoseConfig,
    Replicas,
    TrainConfig,
    cross_fit,
    of_collection,
    of_file,
    run,
    squared,
)
from soardb.pipelines.diagnose.replicas import _dealt
from soardb.pipelines.diagnose.training import _batches, _initial, _training_sets
from tests.service.conftest import Served

FEW = TrainConfig(members=4, width=16, steps=60, batch=32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(n: int, seed: int = 0) -> tuple[Any, Any]:
    """(n, 6) points around three middles, and which."""
    middles = np.random.default_rng(100).standard_normal((3, 6)) * 2
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    return (middles[kinds] + rng.standard_normal((n, 6))).astype(np.float32), kinds


def alone(x: Any, y: Any, classes: int, config: TrainConfig, member: int) -> list[Any]:
    """One replica by a plain loop over single matrix products, from its own weights and batches."""
    rng = np.random.default_rng([config.seed, 1, member])
    sizes = [x.shape[1], *[config.width] * (config.layers - 1), classes]
    maps = [(torch.tensor(w[0]), torch.tensor(b[0, 0])) for w, b in _initial([rng], sizes)]
    parts = [part.requires_grad_() for one in maps for part in one]
    batches = _batches(_training_sets(len(x), config)[member], config.batch, rng)
    adam = torch.optim.AdamW(parts, lr=config.rate, weight_decay=config.decay)
    for step in range(config.steps):
        for group in adam.param_groups:
            group["lr"] = config.rate * (1 + np.cos(np.pi * step / config.steps)) / 2
        rows = next(batches)
        h = torch.tensor(x[rows])
        for depth, (w, b) in enumerate(maps):
            h = (torch.relu(h) if depth else h) @ w + b
        adam.zero_grad()
        torch.nn.functional.cross_entropy(h, torch.tensor(y[rows])).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return [part.detach().numpy() for part in parts]


class TestTraining:
    @pytest.mark.parametrize("randomness", RANDOMNESS)
    def test_each_replica_is_what_it_would_be_alone(self, randomness: Any) -> None:
        """Nothing of one gets into another, and no gradient is scaled by their number."""
        x, y = blobs(90)
        config = replace(FEW, randomness=randomness, steps=25)
        replicas = Replicas(config).fit(x, y)
        scaled = (x - replicas._middle) / replicas._scale
        for member in (0, 3):
            parts = alone(scaled, y, 3, config, member)
            together = [part[member] for one in replicas._maps for part in one]
            for want, got in zip(parts, together, strict=True):
                assert np.abs(want - got.reshape(want.shape)).max() < 1e-4  # weights move by 0.05

    def test_a_seed_says_it_all(self) -> None:
        x, y = blobs(90)
        first = Replicas(FEW).fit(x, y).logits(x)
        torch.manual_seed(7)  # of no influence
        assert np.array_equal(first, Replicas(FEW).fit(x, y).logits(x))
        assert not np.allclose(first, Replicas(replace(FEW, seed=1)).fit(x, y).logits(x), atol=0.1)
        more = Replicas(replace(FEW, members=6)).fit(x, y).logits(x)
        assert np.abs(more[:4] - first).max() < 1e-3
        assert np.abs(more[4:] - first[:2]).max() > 0.1

    def test_what_each_is_trained_on(self) -> None:
        def sets(randomness: Any) -> list[Any]:
            return _training_sets(101, replace(FEW, randomness=randomness))

        assert all(np.array_equal(rows, np.arange(101)) for rows in sets("init"))
        drawn = sets("bootstrap")
        assert {len(rows) for rows in drawn} == {101}
        assert all(50 < len(set(rows.tolist())) < 80 for rows in drawn)  # 64 expected
        assert len({tuple(rows) for rows in drawn}) == 4
        halves = sets("halves")
        for first, second in zip(halves[::2], halves[1::2], strict=True):
            assert sorted([*first, *second]) == list(range(101))
        assert set(halves[0]) != set(halves[2])

    def test_batches_are_passes_over_all(self) -> None:
        batches = _batches(np.arange(10) * 2, 4, np.random.default_rng(0))
        rows = np.concatenate([next(batches) for _ in range(5)])
        assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(0, 20, 2))
        assert rows[:10].tolist() != rows[10:].tolist()

    def test_they_learn_and_predict_by_their_mean(self) -> None:
        x, y = blobs(400)
        names = np.array(["cat", "dog", "eel"])
        told: list[tuple[str, float]] = []
        replicas = Replicas(FEW).fit(x[:200], names[y[:200]], progress=lambda *a: told.append(a))
        p = replicas.predict_proba(x[200:])
        assert np.abs(p.sum(axis=1) - 1).max() < 1e-12
        said = replicas.predict(x[200:])
        assert (said == names[p.argmax(axis=1)]).all()
        assert (said == names[y[200:]]).mean() > 0.93  # measured 0.985
        assert told[0] == ("train", 1 / 60)
        assert told[-1] == ("train", 1.0)
        logits = replicas.logits(x[200:])
        assert logits.shape == (4, 200, 3)
        e = np.exp(logits.astype(np.float64))
        assert np.abs((e / e.sum(axis=2, keepdims=True)).mean(axis=0) - p).max() < 1e-12

    def test_scale_and_place_of_features_do_not_matter(self) -> None:
        x, y = blobs(200)
        plain = Replicas(FEW).fit(x, y).logits(x)
        moved = Replicas(FEW).fit(1000 * x + 5000, y).logits(1000 * x + 5000)
        assert np.abs(plain - moved).max() < 0.1  # the rounding of 5000 is in it

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"members": 1}, "members within 2"),
            ({"members": 3, "randomness": "halves"}, "even number of halves, got 3"),
            ({"randomness": "luck"}, "randomness one of init, bootstrap, halves, got 'luck'"),
            ({"width": 0}, "width"),
            ({"rate": 0.0}, "rate between 0 and 10"),
            ({"decay": 1.0}, "decay"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            Replicas(replace(FEW, **options))

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [
            ([[1.0], [2.0]], [0], "as many labels as features, at least 2, got 1 and 2"),
            ([1.0, 2.0], [0, 1], "finite .n, d. numbers, got shape"),
            ([[1.0], [np.nan]], [0, 1], "finite"),
            ([["a"], ["b"]], [0, 1], "features as .n, d. numbers"),
            ([[1.0], [2.0]], [0, 0], "at least 2 classes, got \\[0\\]"),
            ([[1.0], [2.0]], [0.5, 1.0], "whole numbers, strings or truth values, got float64"),
        ],
    )
    def test_bad_input_is_named(self, x: Any, y: Any, message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            Replicas(FEW).fit(x, y)

    def test_without_pytorch_it_says_what_to_install(self, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(Unavailable, match=r"soardb\[models\]"):
            Replicas(FEW).fit(*blobs(20))

    def test_only_what_was_trained_is_asked(self) -> None:
        x, y = blobs(60)
        with pytest.raises(InvalidArgument, match="call fit first"):
            Replicas(FEW).logits(x)
        replicas = Replicas(replace(FEW, steps=2)).fit(x, y)
        with pytest.raises(InvalidArgument, match="features of 6 dimensions, got 2"):
            replicas.logits(x[:, :2])
        with pytest.raises(InvalidArgument, match="labels of .*, got 9"):
            replicas.codes([0, 9])


class TestCrossFit:
    def test_nobody_is_asked_about_what_they_were_trained_on(self) -> None:
        """Labels by chance: networks know their own by heart and can only guess others."""
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((120, 10)), rng.integers(0, 2, 120)
        config = replace(FEW, width=64, steps=200)
        assert (Replicas(config).fit(x, y).predict(x) == y).all()
        found = cross_fit(x, y, config)
        said = found.probabilities.argmax(axis=2)
        assert 0.35 < (said == y).mean() < 0.65  # one half, sd 0.05

    def test_every_sample_has_its_own_predictions(self) -> None:
        """In the order of the samples, with ids and the names of the classes."""
        x, y = blobs(150)
        names = np.array(["cat", "dog", "eel"])[y]
        told: list[float] = []
        found = cross_fit(
            x, names, FEW, folds=3, ids=range(50, 200), progress=lambda _, share: told.append(share)
        )
        assert found.ids == list(range(50, 200))
        assert found.names == ["cat", "dog", "eel"]
        assert found.labels.tolist() == y.tolist()
        assert found.correct.mean() > 0.9  # measured 0.98
        assert found.randomness == "init and order"
        assert told == sorted(told)
        assert told[-1] == 1
        assert len(told) == 180

    def test_folds_are_even_in_each_label(self) -> None:
        labels = np.repeat([0, 1, 2], [50, 31, 7])
        fold_of = _dealt(labels, 4, seed=1)
        for label in range(3):
            counts = np.bincount(fold_of[labels == label], minlength=4)
            assert np.ptp(counts) <= 1
        assert np.ptp(np.bincount(fold_of)) <= 1
        assert (fold_of != _dealt(labels, 4, seed=2)).any()

    def test_a_label_that_one_fold_alone_has_is_a_class_all_the_same(self) -> None:
        x, y = blobs(60)
        y[0] = 7
        found = cross_fit(x, y, FEW)
        assert found.names == [0, 1, 2, 7]
        assert not found.correct[0]

    def test_bad_folds_are_named(self) -> None:
        with pytest.raises(InvalidArgument, match="folds within 2..10"):
            cross_fit(*blobs(10), FEW, folds=11)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """90 labelled points of three kinds with string ids, and ten without a label."""
    x, y = blobs(100)
    payloads = [
        {"n": i, "kind": {"name": "abc"[kind]} if i < 90 else {}} for i, kind in enumerate(y)
    ]
    with soardb.connect(tmp_path / "db") as database:
        schema = {"n": "int", "misaligned": "bool"}
        made = database.create_collection("c", 6, "l2", schema=schema)
        made.upsert([f"p{i}" for i in range(100)], x, payloads)
    return tmp_path / "db"


class TestStored:
    def test_labels_are_a_field_and_points_without_it_stay_out(self, directory: Path) -> None:
        x, y = blobs(100)
        with soardb.connect(directory) as database:
            held = database.get_collection("c")
            found = of_collection(held, "kind.name", FEW, folds=3)
            few = of_collection(held, "kind.name", replace(FEW, steps=2), filter="n < 30")
        order = [int(str(point_id)[1:]) for point_id in found.ids]
        assert sorted(order) == list(range(90))
        assert found.names == ["a", "b", "c"]
        assert found.labels.tolist() == y[order].tolist()
        want = cross_fit(x[order], np.array(list("abc"))[y[order]], FEW, folds=3, ids=found.ids)
        assert np.array_equal(found.logs, want.logs)
        assert sorted(map(str, few.ids)) == sorted(f"p{i}" for i in range(30))

    def test_a_served_collection_will_do(self, directory: Path) -> None:
        config = replace(FEW, steps=3)
        with Served(directory) as server, soardb.connect(server.target) as database:
            far = of_collection(database.get_collection("c"), "kind.name", config)
        with soardb.connect(directory) as database:
            near = of_collection(database.get_collection("c"), "kind.name", config)
        assert dict(zip(far.ids, far.labels.tolist(), strict=True)) == dict(
            zip(near.ids, near.labels.tolist(), strict=True)
        )

    def test_labels_of_several_types_are_refused(self, directory: Path) -> None:
        with soardb.connect(directory) as database:
            held = database.get_collection("c")
            held.update_payload({"odd": 1}, ids=["p1"])
            held.update_payload({"odd": "one"}, ids=["p2"])
            with pytest.raises(InvalidArgument, match="in 'odd', got int and str"):
                of_collection(held, "odd", FEW)
            held.update_payload({"half": 0.5}, ids=["p1", "p2"])
            with pytest.raises(InvalidArgument, match="in 'half', got float"):
                of_collection(held, "half", FEW)
            with pytest.raises(InvalidArgument, match="points with the field 'none', there are"):
                of_collection(held, "none", FEW)

    def test_from_the_command_line_to_fields_of_points(
        self, tmp_path: Path, directory: Path
    ) -> None:
        """ensemble writes what diagnose reads; the second writes bias and variance back."""
        file = tmp_path / "p.npz"
        given = ["ensemble", directory, "c", "--label-field", "kind.name", "--to", file]
        options = ["--members", 4, "--width", 16, "--steps", 30, "--randomness", "halves"]
        told = CliRunner().invoke(app, list(map(str, given + options)), catch_exceptions=False)
        assert "90 points, 3 classes" in told.output
        assert "init, order and halves" in told.output
        given = ["diagnose", file, directory, "c", "--write"]
        CliRunner().invoke(app, [*map(str, given), "--bootstrap", "0"], catch_exceptions=False)
        config = TrainConfig(4, "halves", width=16, steps=30)
        with soardb.connect(directory) as database:
            held = database.get_collection("c")
            want = of_collection(held, "kind.name", config)
            parts = squared(want, "pairs")
            points: Any = held.get(want.ids)
            others: Any = held.get([f"p{i}" for i in range(90, 100)])
        assert [p.payload["bias"] for p in points] == pytest.approx(parts.bias.tolist())
        assert [p.payload["variance"] for p in points] == pytest.approx(parts.variance.tolist())
        assert all("bias" not in p.payload for p in others)
        assert of_file(file).names == ["a", "b", "c"]
        table = run(of_file(file), DiagnoseConfig("pairs", bootstrap=0)).to_arrow()
        assert set(table["label"].to_pylist()) == {"a", "b", "c"}
        assert table.schema.metadata[b"randomness"] == b"init, order and halves"

    def test_the_command_names_a_file_it_cannot_write(self, directory: Path) -> None:
        """Before it trains."""
        given = ["ensemble", str(directory), "c", "--label-field", "kind", "--to"]
        with pytest.raises(InvalidArgument, match=r"\*.npz or \*.parquet, got 'p.csv'"):
            CliRunner().invoke(app, [*given, "p.csv"], catch_exceptions=False)
        with pytest.raises(NotFound, match="the folder .*none to exist"):
            CliRunner().invoke(app, [*given, str(directory / "none/p.npz")], catch_exceptions=False)
