"""Ensembles of models, classifiers, files and Arrow tables: the same predictions whatever the way.

ensembles.py -> [test_diagnose_sources.py] -> soardb/pipelines/diagnose/source.py, files.py
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from soardb.errors import InvalidArgument
from soardb.pipelines.diagnose import (
    Ensemble,
    of_arrow,
    of_estimators,
    of_file,
    of_models,
    to_arrow,
    to_file,
)
from tests.pipelines.ensembles import logits_of

Z, LABELS = logits_of(3, members=3, n=20, classes=4)
NAMES = ["ant", "bee", "cat", "dog"]


def named() -> Ensemble:
    ids = [f"s{i}" for i in range(20)]
    return Ensemble.of_logits(Z, LABELS, ids, randomness="seeds", names=NAMES)


def zeros() -> Ensemble:
    p = np.zeros((2, 3, 2))
    p[:, :, 0] = 1
    p[1, 2] = 0.5
    return Ensemble.of_probabilities(p, [0, 1, 0])


def same(one: Ensemble, other: Ensemble) -> bool:
    return (
        np.abs(one.probabilities - other.probabilities).max() < 1e-15
        and np.array_equal(one.labels, other.labels)
        and (one.ids, one.randomness, one.names) == (other.ids, other.randomness, other.names)
    )


class TestModels:
    def test_each_is_a_function_from_samples_to_logits(self) -> None:
        weights = np.random.default_rng(0).standard_normal((3, 6, 4))
        x = np.random.default_rng(1).standard_normal((20, 6))
        models = [lambda samples, w=w: samples @ w for w in weights]
        found = of_models(models, x, LABELS, randomness="weights")
        assert same(found, Ensemble.of_logits(x @ weights, LABELS, randomness="weights"))

    def test_predictions_of_several_shapes_are_refused(self) -> None:
        models: Any = [lambda x: np.zeros((5, 3)), lambda x: np.zeros((5, 2))]
        with pytest.raises(InvalidArgument, match=r"all of one shape, got \[\(5, 2\), \(5, 3\)\]"):
            of_models(models, None, [0] * 5)
        with pytest.raises(InvalidArgument, match="got none"):
            of_models([], None, [0] * 5)


class TestEstimators:
    def classifier(self, seed: int, classes: Any) -> Any:
        p = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), 6)
        return SimpleNamespace(classes_=np.array(classes), predict_proba=lambda x: p[: len(x)])

    def test_labels_are_those_of_the_classifiers(self) -> None:
        """In the order of classes_, which they name."""
        some = [self.classifier(seed, ["bee", "ant", "cat"]) for seed in range(3)]
        found = of_estimators(some, range(4), ["cat", "ant", "bee", "cat"], ids=[7, 8, 9, 10])
        assert found.labels.tolist() == [2, 1, 0, 2]
        assert found.names == ["bee", "ant", "cat"]
        assert np.allclose(found.probabilities[1], some[1].predict_proba(range(4)))
        assert found.named(found.labels) == ["cat", "ant", "bee", "cat"]

    def test_what_does_not_fit_is_named(self) -> None:
        one, other = self.classifier(0, [1, 2]), self.classifier(1, [1, 3])
        with pytest.raises(InvalidArgument, match=r"same classes, got \[1 2\] and \[1 3\]"):
            of_estimators([one, other], range(2), [1, 2])
        with pytest.raises(InvalidArgument, match=r"labels of \[1 2\], got 5"):
            of_estimators([one, one], range(2), [1, 5])
        with pytest.raises(InvalidArgument, match="at least 2 classifiers, got none"):
            of_estimators([], range(2), [1, 5])


class TestFilesAndTables:
    @pytest.mark.parametrize("make", [named, zeros])
    @pytest.mark.parametrize("name", ["p.npz", "p.parquet"])
    def test_what_is_written_is_read(self, tmp_path: Path, make: Any, name: str) -> None:
        to_file(make(), tmp_path / name)
        assert same(of_file(tmp_path / name), make())

    def test_a_table_has_a_row_a_sample(self) -> None:
        table = to_arrow(named())
        assert table.column_names == ["id", "label", "logits"]
        assert table["label"].to_pylist() == LABELS.tolist()
        row = np.array(table["logits"][5].as_py())
        assert np.abs(row - named().logs[:, 5]).max() == 0
        assert same(of_arrow(table), named())
        assert same(of_arrow(table.slice(4, 10)), Ensemble.of_logits(
            Z[:, 4:14], LABELS[4:14], named().ids[4:14], randomness="seeds", names=NAMES
        ))  # fmt: skip
        assert to_arrow(zeros()).column_names[-1] == "probabilities"

    def test_plain_lists_in_pieces_will_do(self) -> None:
        """As a data frame makes them: no fixed sizes, no metadata, no ids, several chunks."""
        rows = Z.transpose(1, 0, 2).tolist()
        table = pa.concat_tables(
            pa.table({"label": LABELS[part].tolist(), "logits": rows[part]})
            for part in (slice(0, 7), slice(7, 20))
        )
        assert same(of_arrow(table), Ensemble.of_logits(Z, LABELS))
        assert same(of_arrow(table.select(["logits"]), LABELS), Ensemble.of_logits(Z, LABELS))

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0]]], "m lists of c numbers in every row"),
            ([[[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0, 2.0]]], r"lengths \["),
            ([[1.0, 2.0], [1.0, 2.0]], "every row of 'logits', got list<"),
            ([[[1.0, 2.0], [1.0, 2.0]], None], "m lists of c numbers"),
            ([[[1.0, None], [1.0, 2.0]]] * 2, "numbers in 'logits', got double or nulls"),
            ([[["a", "b"], ["a", "b"]]] * 2, "numbers in 'logits', got string"),
        ],
    )
    def test_columns_that_are_no_cube_are_refused(self, column: Any, message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            of_arrow(pa.table({"logits": column, "label": [0, 1]}))

    def test_what_is_missing_or_no_table_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="logits or probabilities in the table, got lab"):
            of_arrow(pa.table({"label": [1]}))
        with pytest.raises(InvalidArgument, match="labels in the table or from else.* got both"):
            of_arrow(to_arrow(named()), LABELS)
        with pytest.raises(InvalidArgument, match=r"expected a pyarrow.Table, got \[1\]"):
            of_arrow([1])
        with pytest.raises(InvalidArgument, match="4 names of classes that differ"):
            Ensemble.of_logits(Z, LABELS, names=["a", "b", "a", "c"])
        (tmp_path / "p.parquet").write_bytes(b"no")
        with pytest.raises(InvalidArgument, match=r"a Parquet file, p.parquet"):
            of_file(tmp_path / "p.parquet")
        np.savez(tmp_path / "p.npz", logits=Z)
        with pytest.raises(InvalidArgument, match="ids in p.npz with a label field"):
            of_file(tmp_path / "p.npz", object(), "kind")
