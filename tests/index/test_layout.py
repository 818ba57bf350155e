"""Layouts chosen by measuring: what is fixed stays, seeds decide, and chance wins nothing.

soardb/index/layout.py, work.py -> [test_layout.py]
"""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import soardb
from soardb import Layout, SoarIndex, choose_layout
from soardb.errors import InvalidArgument
from soardb.index import layout as module
from soardb.index.layout import QUESTIONS, SAMPLE, Tried, wanted_for
from soardb.index.plan import BuildParams, choose_build, choose_search
from soardb.index.work import WEIGHTS, Work, work_of
from soardb.kernels.layout import F32

N, D = 12_000, 24
QUICK: dict[str, Any] = {"sample": 6_000, "questions": 200}
FEW: dict[str, Any] = {"nlist": 300, "dims_per_block": 3}


def blobs(n: int = N, d: int = D, seed: int = 2) -> F32:
    """(n, d) float32 in many overlapping clouds."""
    centres = np.random.default_rng(1).normal(size=(300, d))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 300, n)] + 1.5 * rng.normal(size=(n, d))).astype(np.float32)


def lopsided(n: int, d: int, rank: int) -> F32:
    """(n, d) float32 clouds in the first `rank` of their dimensions, and hardly anything beyond."""
    noise = 0.02 * np.random.default_rng(4).normal(size=(n, d - rank))
    return np.concatenate([blobs(n, rank), noise], axis=1, dtype=np.float32)


@pytest.fixture(scope="module")
def chosen() -> Layout:
    """Spilling and AVQ are free."""
    return choose_layout(blobs(), "cosine", **FEW, **QUICK)


class Watched(np.ndarray):
    """An array that counts the rows that are taken from it."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        found = np.asarray(self)[key]
        if isinstance(key, np.ndarray):
            Watched.taken += len(found)
        return found


class TestChoice:
    def test_the_formulas_choice_is_tried_first(self, chosen: Layout) -> None:
        """Whoever reads the table sees what is being compared with."""
        start = choose_build(BuildParams(**FEW), N, D, "cosine")
        assert chosen.tried[0].choice == start
        assert chosen.sample == 6_000
        assert chosen.questions == 200

    def test_one_option_is_changed_at_a_time(self, chosen: Layout) -> None:
        """Coordinate descent: each layout differs in one option from one that was tried before."""
        for i, tried in enumerate(chosen.tried[1:], 1):
            differences = [
                sum(
                    a != b
                    for a, b in zip(astuple(tried.choice), astuple(other.choice), strict=True)
                )
                for other in chosen.tried[:i]
            ]
            assert min(differences) == 1

    def test_the_chosen_one_is_no_dearer_on_either_half(self, chosen: Layout) -> None:
        """The winner is the formulas', or one that is cheaper on questions that chose it or not."""
        first = chosen.tried[0]
        winner = next(tried for tried in chosen.tried if tried.choice == chosen.choice)
        assert winner.is_reached
        assert winner.cost_us <= first.cost_us
        if winner is not first:
            before, after = chosen.confirmed
            assert after.cost_us < before.cost_us

    def test_codes_grow_fine_where_few_dimensions_count(self) -> None:
        """Of 64 dimensions 8 beside each other count: the formulas do not see it.

        Turned residuals would need no finer codes.
        """
        fixed: Any = {"nlist": 300, "soar_lambda": 1.5, "rotate": False}
        layout = choose_layout(lopsided(N, 64, 8), "l2", **fixed, **QUICK)
        assert layout.tried[0].choice.dims_per_block == 3
        assert layout.choice.dims_per_block < 3  # measured: 2
        before, after = layout.confirmed
        assert after.is_reached
        assert not before.is_reached or after.cost_us < before.cost_us

    def test_a_winner_by_chance_loses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is cheaper only on the questions that chose it is not taken."""
        examined = module._Trials._examined

        def partial(self: Any, choice: Any, half: int) -> Tried:
            tried = examined(self, choice, half)
            lucky = half == 0 and choice.soar_lambda == 0
            return replace(tried, cost_us=0.1 if lucky else 9.0, is_reached=True)

        monkeypatch.setattr(module._Trials, "_examined", partial)
        layout = choose_layout(blobs(), "cosine", nlist=300, dims_per_block=3, avq_eta=2.5, **QUICK)
        assert min(layout.tried, key=lambda tried: tried.cost_us).choice.soar_lambda == 0
        assert layout.choice == layout.tried[0].choice
        assert "other questions" in layout.reason

    @pytest.mark.parametrize("metric", ["dot", "l2"])
    def test_under_every_metric(self, metric: str) -> None:
        """AVQ is no option under l2; the options fit a SoarIndex."""
        layout = choose_layout(blobs(), metric, nlist=300, dims_per_block=3, **QUICK)
        etas = {tried.choice.avq_eta for tried in layout.tried}
        assert etas == {0.0} if metric == "l2" else len(etas) > 1
        index = SoarIndex(D, metric, **layout.options)
        index.train(blobs())
        assert index.describe() | layout.options == index.describe()

    def test_the_same_seed_chooses_alike(self, chosen: Layout) -> None:
        """No clock is read: whoever builds again has the same index."""
        assert choose_layout(blobs(), "cosine", threads=2, **FEW, **QUICK) == chosen

    def test_what_is_given_stays(self) -> None:
        """An option that the caller set is not tried otherwise."""
        given = {"nlist": 200, "dims_per_block": 2, "avq_eta": 0.0}
        layout = choose_layout(blobs(), "cosine", **QUICK, **given)  # type: ignore[arg-type]
        assert layout.options | given == layout.options
        assert all(tried.choice.nlist == 200 for tried in layout.tried)

    def test_lists_are_chosen_for_n(self) -> None:
        """A number of lists stands for its ratio to sqrt(n), and work is foreseen for n."""
        some, more = (
            choose_layout(blobs(), "cosine", n=n, soar_lambda=0, avq_eta=0, **QUICK).tried[0]
            for n in (10**6, 4 * 10**6)
        )
        assert some.choice.nlist == 3_500
        assert more.choice.nlist == 7_000
        assert 1.4 * some.scanned < more.scanned < 2.1 * some.scanned  # 2 with the same rerank
        assert more.cost_us > some.cost_us

    def test_its_json_has_all_of_it(self, chosen: Layout) -> None:
        """For a file beside the index."""
        said = json.loads(json.dumps(chosen.to_json()))
        assert said["choice"] == chosen.to_json()["choice"]
        assert len(said["tried"]) == len(chosen.tried)


class TestWithoutMeasuring:
    def test_few_vectors_stay_exact(self) -> None:
        """Nothing to choose, and the reason says so."""
        layout = choose_layout(blobs(1_500), "l2")
        assert layout.options["nlist"] == 0
        assert not layout.tried
        assert "scores every one" in layout.reason

    def test_exact_because_it_was_asked(self) -> None:
        assert "asked for" in choose_layout(blobs(), "l2", nlist=0).reason

    def test_too_few_beside_the_questions(self) -> None:
        """The formulas' choice stays, and the reason says why."""
        layout = choose_layout(blobs(1_200), "l2", nlist=20)
        assert layout.options["nlist"] == 20
        assert not layout.tried
        assert "too few" in layout.reason

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"target_recall": 0}, "target_recall above 0"),
            ({"n": 10}, "expected n"),
            ({"k": 0}, "expected k"),
            ({"sample": 10}, "expected sample"),
            ({"questions": 1}, "expected questions"),
            ({"nlists": 10}, "did you mean 'nlist'"),
            ({"avq_eta": 2.5}, "no avq_eta under l2"),
            ({"layout": "guessed"}, "'formula' or 'measured'"),
        ],
    )
    def test_bad_arguments_are_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            choose_layout(blobs(100), "l2", **given)

    @pytest.mark.parametrize("shape", [(24,), (0, 24), (3, 1), (2, 3, 4)])
    def test_bad_vectors_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidArgument, match="expected"):
            choose_layout(np.zeros(shape, np.float32), "l2")

    def test_values_that_no_metric_compares_are_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="finite drawn vectors"):
            choose_layout(np.full((N, D), np.nan, np.float32), "l2", nlist=300, **QUICK)


class TestSimilarity:
    def test_clusters_that_the_sample_cannot_show_leave_the_formulas(self) -> None:
        """40,000 vectors by hundreds: 15 of each in the sample, 4 in a quarter of it."""
        rng = np.random.default_rng(0)
        vectors = np.repeat(rng.normal(size=(400, D)), 100, axis=0)
        vectors += 0.05 * rng.normal(size=vectors.shape)
        layout = choose_layout(vectors.astype(np.float32), "l2", nlist=700, **QUICK)
        assert len(layout.tried) == 1
        assert layout.choice == layout.tried[0].choice
        assert "larger sample" in layout.reason


class TestMemory:
    def test_only_drawn_rows_are_read(self) -> None:
        """So vectors may be mapped from a file that is larger than the memory."""
        watched = blobs().view(Watched)
        Watched.taken = 0
        choose_layout(watched, "l2", nlist=300, dims_per_block=3, soar_lambda=0.0, **QUICK)
        assert Watched.taken == 6_000 + 2 * 200

    def test_a_sample_of_wide_vectors_is_smaller(self) -> None:
        """At 4,096 dimensions 50,000 points would be 800 MB."""
        assert wanted_for(10**7, 100) == SAMPLE + 2 * QUESTIONS
        assert wanted_for(10**7, 4096) == 2**14 + 2 * QUESTIONS
        assert wanted_for(3_000, 100) == 3_000

    def test_a_mapped_file_gives_the_same(self, chosen: Layout, tmp_path: Path) -> None:
        np.save(tmp_path / "vectors.npy", blobs())
        mapped: npt.NDArray[Any] = np.load(tmp_path / "vectors.npy", mmap_mode="r")
        assert choose_layout(mapped, "cosine", **FEW, **QUICK) == chosen


class TestBuilds:
    def test_train_measures_by_itself(self) -> None:
        """layout="measured" in the place of choose_layout() and its options."""
        vectors = lopsided(4_000, 64, 8)
        fixed: Any = {"nlist": 150, "soar_lambda": 1.5, "rotate": False}
        index = SoarIndex(64, "l2", layout="measured", threads=2, **fixed)
        seen: set[str] = set()
        index.train(vectors, lambda stage, share: seen.add(stage))
        assert index.describe()["dims_per_block"] < 3
        assert index.describe() | fixed == index.describe()
        assert {"layout", "k-means"} <= seen

    def test_a_file_keeps_the_word(self, tmp_path: Path) -> None:
        """What was measured is in the file, and how it was chosen."""
        index = SoarIndex(D, "l2", layout="measured")
        index.train(blobs(500))
        index.save(tmp_path / "index")
        assert SoarIndex.load(tmp_path / "index").describe()["layout"] == "measured"

    def test_a_collection_measures_when_it_trains(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its generations are built by what was measured on its points."""
        vectors = lopsided(4_000, 64, 8)
        calls: list[int] = []
        measured = module.measure_layout

        def watched(vectors: F32, *given: Any, **more: Any) -> Layout:
            calls.append(len(vectors))
            return measured(vectors, *given, **more | QUICK)

        monkeypatch.setattr(module, "measure_layout", watched)
        with soardb.connect(tmp_path / "db") as database:
            things = database.create_collection(
                "things",
                64,
                "l2",
                index={"layout": "measured", "nlist": 150, "soar_lambda": 1.5, "rotate": False},
            )
            things.upsert(np.arange(4_000), vectors)
            things.compact()
            model = things._core.contents.index.model
            assert model is not None
            assert model.choice.dims_per_block < 3  # measured: 2
            assert len(calls) == 1
            ids = things.search(vectors[5], limit=1).ids
            assert ids == [5]


class TestWork:
    def test_time_is_the_weighted_sum_of_the_counts(self) -> None:
        assert Work(1, 0, 0, 0, 0, 0, 0).microseconds == pytest.approx(WEIGHTS.calls / 1000)
        twice = Work(*(2 * weight for weight in astuple(WEIGHTS)))
        expected = sum(2 * weight**2 for weight in astuple(WEIGHTS)) / 1000
        assert twice.microseconds == pytest.approx(expected)

    def test_no_count_is_for_nothing(self) -> None:
        """A weight of 0 would make one side of a trade free."""
        assert min(astuple(WEIGHTS)) > 0

    def test_two_levels_score_fewer_centroids(self) -> None:
        """From 16,384 lists on only the cells that are visited count."""
        choice = choose_build(BuildParams(nlist=40_000), 10**8, D, "dot")
        plan = choose_search(
            k=10, nprobe=100, rerank=100, n=10**8, nlist=choice.nlist, ncell=choice.ncell,
            collect_factor=2.0, copies=2, dims_per_block=3,
        )  # fmt: skip
        work = work_of(plan, choice, 1e5, 100, 8, D)
        assert 0.4 * 40_000 * D < work.centroids < 0.45 * 40_000 * D
