"""Parts of a load: written once for good, remembered in ranges, built with the model that is given.

conftest.py (databases that compact when told to) -> [test_loading.py] -> loading.py, compaction.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb.collection import Collection
from soardb.compaction import Policy, why_due
from soardb.connect import connect
from soardb.core import GIVEN_MODEL
from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument
from soardb.generation import keep_model
from soardb.index.model import Model
from soardb.index.plan import choose_build
from soardb.loading import Loaded
from tests.collections.conftest import D, open_by_hand
from tests.index.conftest import clustered

N = 400
VECTORS = clustered(N, D, seed=1)
INDEX: Any = {"nlist": 8}
BY_NOBODY = Policy(growth=1e18, skew=1e18, least=2**62, bounded=2**62, loading=2**62)


@pytest.fixture
def made(folder: Path) -> Any:
    """A collection without points."""
    with open_by_hand(folder) as database:
        yield database.create_collection("c", D, "l2", index=INDEX)


def model_for(made: Collection, path: Path, trained_on: int = N, seed: int = 9) -> bytes:
    """A model that this collection's own training would not find."""
    params = made._core.settings.params
    vectors = clustered(N, D, seed=seed) * 3
    model = Model.train(vectors, choose_build(params, N, D, "l2"), params, "l2")
    keep_model(path, model, "l2", params, 1.5, trained_on)
    return path.read_bytes()


class TestLoaded:
    def test_ranges_grow_together(self) -> None:
        """However parts come, what is remembered is as short as it can be."""
        numbers = np.random.default_rng(0).permutation(200).tolist()
        held, seen = Loaded("x"), set()
        for number in numbers:
            assert number not in held
            held = held.having(number)
            seen.add(number)
            assert {i for first, end in held.ranges for i in range(first, end)} == seen
            assert all(a[1] < b[0] for a, b in zip(held.ranges, held.ranges[1:], strict=False))
            assert held.having(number) == held
        assert held.ranges == [(0, 200)]


class TestParts:
    def test_a_part_is_written_once_for_good(self, folder: Path) -> None:
        """After a restart, after others have changed the points, whatever it brings."""
        with open_by_hand(folder) as database:
            made = database.create_collection("c", D, "l2")
            made._begin_load("x", None)
            assert made._load_part("x", 4, [1, 2, 3], VECTORS[:3]) == 3
            assert made._load_part("x", 5, [], VECTORS[:0]) == 0
            made.delete([2])
        with open_by_hand(folder) as database:
            made = database.get_collection("c")
            made._begin_load("x", None)
            seq = made.seq
            assert made._load_part("x", 4, [1, 2, 3], VECTORS[:3]) == 0
            assert made._load_part("x", 5, [], VECTORS[:0]) == 0
            assert (made.seq, made.count()) == (seq, 2)
            held = made._loaded()
            assert held is not None
            assert (held.load, held.ranges) == ("x", [(4, 6)])
            assert made._load_part("x", 0, [7], VECTORS[:1]) == 1

    def test_a_part_that_is_refused_leaves_nothing(self, made: Collection) -> None:
        """An id that another part brought; it can be sent again without."""
        made._begin_load("x", None)
        made._load_part("x", 0, [1, 2], VECTORS[:2])
        with pytest.raises(AlreadyExists, match="2 is in the collection"):
            made._load_part("x", 1, [3, 2], VECTORS[:2])
        assert made.count() == 2
        assert made._load_part("x", 1, [3], VECTORS[:1]) == 1

    def test_one_load_of_a_collection_without_points(self, made: Collection) -> None:
        """Two sources in one would be neither."""
        with pytest.raises(InvalidArgument, match="was begun here"):
            made._load_part("x", 0, [1], VECTORS[:1])
        made._begin_load("x", None)
        made._begin_load("x", None)
        with pytest.raises(AlreadyExists, match="loaded from another source"):
            made._begin_load("y", None)
        with pytest.raises(InvalidArgument, match="got another's"):
            made._load_part("y", 0, [1], VECTORS[:1])

    def test_points_that_are_there_are_not_mixed_with_it(self, made: Collection) -> None:
        """Adding is what upsert is for."""
        made.upsert([1], VECTORS[:1])
        with pytest.raises(AlreadyExists, match="without points to load, got one of 1"):
            made._begin_load("x", None)
        assert made._loaded() is None


class TestGivenModel:
    def test_builds_are_made_with_it_until_the_load_ends(
        self, made: Collection, tmp_path: Path
    ) -> None:
        """Even where others would be due; then the collection learns its own again."""
        data = model_for(made, tmp_path / "m")
        made._begin_load("x", data)
        places = Model.train(
            clustered(N, D, seed=9) * 3,
            choose_build(made._core.settings.params, N, D, "l2"),
            made._core.settings.params,
            "l2",
        ).places

        def held() -> Any:
            model = made._core.contents.index.model
            assert model is not None
            return model.places

        made._load_part("x", 0, range(N // 2), VECTORS[: N // 2])
        made.compact(retrain=True)
        assert (held() == places).all()
        made._load_part("x", 1, range(N // 2, N), VECTORS[N // 2 :])
        made._end_load()
        assert (held() == places).all()
        assert made.stats()["since_generation"] == 0
        assert not (made._core.index_folder / GIVEN_MODEL).exists()
        generation = made._core.generation_file()
        made._end_load()
        assert made._core.generation_file() == generation
        made.compact(retrain=True)
        assert held().shape != places.shape or (held() != places).any()

    def test_one_that_was_outgrown_is_not_used(self, made: Collection, tmp_path: Path) -> None:
        """A load that nobody ended: its partitions were meant for fewer points."""
        made._begin_load("x", model_for(made, tmp_path / "m", trained_on=N // 2))
        made._load_part("x", 0, range(N), VECTORS)
        made.compact()
        generation = made._core.contents.generation
        assert generation is not None
        assert generation.residual != 1.5

    def test_one_of_another_collection_is_refused(self, made: Collection, tmp_path: Path) -> None:
        """Other options, or not a model at all; what was given before stays."""
        data = model_for(made, tmp_path / "m")
        made._begin_load("x", data)
        with open_by_hand(tmp_path / "other") as database:
            other = database.create_collection("c", D, "l2", index={"nlist": 9})
            with pytest.raises(InvalidArgument, match="expected a model learnt with params"):
                other._begin_load("x", data)
        with pytest.raises(CorruptStorage):
            made._begin_load("x", data[:-1])
        assert [file.name for file in made._core.index_folder.iterdir()] == [GIVEN_MODEL]
        assert (made._core.index_folder / GIVEN_MODEL).read_bytes() == data

    def test_the_worker_builds_only_to_give_memory_back(self, folder: Path, tmp_path: Path) -> None:
        """Every build but the last would be for nothing; a restart does not forget that."""
        policy = Policy(least=10, bounded=10, loading=50 * 4 * D)
        with connect(folder, policy=BY_NOBODY) as database:
            made = database.create_collection("c", D, "l2", index=INDEX)
            made._begin_load("x", model_for(made, tmp_path / "m"))
            made._load_part("x", 0, range(40), VECTORS[:40])
            assert why_due(made._core, policy) is None
            made._load_part("x", 1, range(40, 60), VECTORS[40:60])
            due = why_due(made._core, policy)
            assert due is not None
            assert "60 points of a load" in due.reason
            made.compact()
            made._load_part("x", 2, range(60, 115), VECTORS[60:115])
            assert why_due(made._core, policy) is None  # not yet as many as in the generation
        with connect(folder, policy=BY_NOBODY) as database:
            made = database.get_collection("c")
            assert why_due(made._core, policy) is None
            made._load_part("x", 3, range(115, 125), VECTORS[115:125])
            assert why_due(made._core, policy) is not None
            made._end_load()
            made.upsert(range(200, 300), VECTORS[200:300])
            due = why_due(made._core, policy)
            assert due is not None
            assert "load" not in due.reason
