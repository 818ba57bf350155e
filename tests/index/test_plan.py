"""What is chosen when the caller does not, and what is refused when the caller does.

    soardb/index/plan.py -> [test_plan.py]

Whether the choices are good ones is for benchmarks/ to say; here they have to be possible, and to
follow the sizes.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from soardb import InvalidArgument, SoarIndex
from soardb.index.plan import (
    BuildOptions,
    BuildParams,
    choose_build,
    choose_search,
    default_nprobe,
    reject_unknown,
)
from soardb.metrics import METRICS, Metric

SIZES = [1, 2, 500, 2_000, 2_001, 20_000, 350_000, 500_000, 10_000_000, 2_000_000_000]


class TestOptions:
    def test_options_and_parameters_are_the_same(self) -> None:
        """A keyword that one of the two lacks could not be used or not be checked."""
        assert set(BuildOptions.__annotations__) == set(BuildParams.__slots__)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("nlists", "nlist"),
            ("n_list", "nlist"),
            ("soar_lamda", "soar_lambda"),
            ("dims_per_bloc", "dims_per_block"),
            ("thread", "threads"),
            ("sperical", "spherical"),
        ],
    )
    def test_an_unknown_one_is_refused_with_the_nearest(self, name: str, meant: str) -> None:
        """A misspelt option must not be ignored."""
        with pytest.raises(InvalidArgument, match=rf"'{name}'; did you mean '{meant}'\?"):
            SoarIndex(8, **{name: 1})  # type: ignore[arg-type]

    def test_a_stranger_is_refused_with_the_list(self) -> None:
        """Nothing is near: all names are told."""
        with pytest.raises(InvalidArgument, match=r"'gpu'; known are .*avq_eta, .*threads"):
            SoarIndex(8, gpu=True)  # type: ignore[call-arg]
        reject_unknown([], ["a"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"nlist": -1}, r"nlist within 0\.\."),
            ({"nlist": 2**20 + 1}, "nlist within"),
            ({"nlist": 8.0}, "nlist to be an integer, got 8.0"),
            ({"nlist": True}, "nlist to be an integer"),
            ({"nlist": "auto"}, "got 'auto'"),
            ({"soar_lambda": -0.1}, r"soar_lambda within 0\.0\.\.1000000\.0, got -0\.1"),
            ({"soar_lambda": math.nan}, "soar_lambda within .* got nan"),
            ({"soar_lambda": math.inf}, "got inf"),
            ({"soar_lambda": 10**400}, "soar_lambda within"),
            ({"soar_lambda": "1.5"}, "got '1.5'"),
            ({"soar_lambda": True}, "got True"),
            ({"dims_per_block": 0}, r"dims_per_block within 1\.\.64, got 0"),
            ({"dims_per_block": 65}, "got 65"),
            ({"avq_eta": 0.5}, r"avq_eta 0 \(off\) or at least 1, got 0\.5"),
            ({"avq_eta": -1}, "avq_eta within"),
            ({"anisotropic_threshold": 1.1}, r"anisotropic_threshold within 0\.0\.\.1\.0"),
            ({"anisotropic_threshold": None}, "anisotropic_threshold within .* got None"),
            ({"ncell": -1}, "ncell within"),
            ({"include_primary": None}, "include_primary True or False, got None"),
            ({"include_primary": "no"}, "include_primary True or False, got 'no'"),
            ({"spherical": 1}, "spherical True or False, got 1"),
            ({"overretrieve": 0.9}, r"overretrieve within 1\.0\.\.2\.0"),
            ({"overretrieve": 2.1}, "overretrieve within"),
            ({"overretrieve": None}, "got None"),
            ({"init": "best"}, r"init 'random' or 'kmeans\+\+', got 'best'"),
            ({"init": None}, "got None"),
            ({"iterations": 0}, r"iterations within 1\.\.1000, got 0"),
            ({"iterations": None}, "iterations to be an integer, got None"),
            ({"points_per_centroid": 0}, "points_per_centroid at least 1, got 0"),
            ({"points_per_centroid": None}, "got None"),
            ({"seed": -1}, "seed at least 0, got -1"),
            ({"seed": None}, "seed to be an integer, got None"),
            ({"threads": 0}, r"threads within 1\.\.1024"),
            ({"threads": None}, "threads to be an integer"),
        ],
        ids=str,
    )
    def test_values_that_cannot_be_are_refused(self, options: dict[str, Any], message: str) -> None:
        """At once, not when the index is built; the message names option, range and value."""
        with pytest.raises(InvalidArgument, match=message):
            SoarIndex(8, "dot", **options)

    def test_avq_is_about_inner_products(self) -> None:
        """Under l2 it would do harm; 0, which is off, is fine."""
        with pytest.raises(InvalidArgument, match="no avq_eta under l2"):
            SoarIndex(8, "l2", avq_eta=2.0)
        assert SoarIndex(8, "l2", avq_eta=0.0).params.avq_eta == 0

    @pytest.mark.parametrize(
        "options",
        [
            {"nlist": np.int64(7), "seed": np.uint8(3), "dims_per_block": np.int32(2)},
            {"soar_lambda": np.float32(1.5), "avq_eta": np.float64(2), "overretrieve": 2},
            {"nlist": None, "soar_lambda": None, "dims_per_block": None, "ncell": None},
        ],
        ids=str,
    )
    def test_numbers_of_numpy_become_plain_ones(self, options: dict[str, Any]) -> None:
        """save() writes them as JSON."""
        params = BuildParams.of(options, "dot")
        assert BuildParams.of(json.loads(json.dumps(asdict(params))), "dot") == params
        for name, value in options.items():
            assert getattr(params, name) == value


class TestBuild:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("d", [2, 32, 100, 768, 4096])
    @pytest.mark.parametrize("n", SIZES)
    def test_the_choice_is_possible(self, n: int, d: int, metric: Metric) -> None:
        """For any size, nothing is left open and nothing exceeds what there is."""
        choice = choose_build(BuildParams(), n, d, metric)
        assert 0 <= choice.nlist <= n
        assert 0 <= choice.ncell <= choice.nlist
        assert choice.soar_lambda >= 0
        assert 1 <= choice.dims_per_block <= 64
        assert choice.avq_eta == 0 or choice.avq_eta >= 1

    def test_small_collections_stay_exact(self) -> None:
        """Below two thousand vectors, or a million numbers, scanning all is as fast."""
        assert choose_build(BuildParams(), 2000, 4096, "dot").nlist == 0
        assert choose_build(BuildParams(), 10_000, 100, "dot").nlist == 0
        assert choose_build(BuildParams(), 20_000, 100, "dot").nlist > 0

    def test_lists_grow_with_the_root_of_n(self) -> None:
        """Four times the vectors, twice the lists."""
        nlists = [choose_build(BuildParams(), n, 100, "dot").nlist for n in (10**5, 4 * 10**5)]
        assert nlists[1] == pytest.approx(2 * nlists[0], abs=1)
        assert 300 < nlists[0] < 3000

    def test_what_the_caller_says_is_kept(self) -> None:
        """Whatever the defaults would be."""
        given = BuildParams(
            nlist=33, soar_lambda=0.7, dims_per_block=5, avq_eta=1.6, ncell=4, threads=2
        )
        choice = asdict(choose_build(given, 1000, 10, "dot"))
        assert choice == {
            "nlist": 33,
            "soar_lambda": 0.7,
            "dims_per_block": 5,
            "avq_eta": 1.6,
            "ncell": 4,
        }
        assert choose_build(BuildParams(nlist=0), 10**7, 100, "dot").nlist == 0
        assert choose_build(BuildParams(nlist=3, ncell=9), 10**7, 100, "dot").ncell == 3

    def test_more_lists_than_vectors_are_refused(self) -> None:
        """The message says what to do."""
        with pytest.raises(InvalidArgument, match="at most the 20 training vectors, got 21; lower"):
            choose_build(BuildParams(nlist=21), 20, 8, "dot")

    def test_two_levels_where_there_are_many_lists(self) -> None:
        """Ranking all centroids would cost more than scanning the best lists."""
        assert choose_build(BuildParams(nlist=1000), 10**6, 100, "dot").ncell == 0
        assert choose_build(BuildParams(nlist=40_000), 10**6, 100, "dot").ncell == 200
        assert choose_build(BuildParams(nlist=40_000, ncell=0), 10**6, 100, "dot").ncell == 0


def search_plan(**changes: Any) -> Any:
    facts = {
        "k": 10,
        "nprobe": None,
        "rerank": None,
        "n": 100_000,
        "nlist": 1000,
        "ncell": 0,
        "collect_factor": 2.0,
        "copies": 2,
        "dims_per_block": 2,
    }
    return choose_search(**(facts | changes))


class TestSearch:
    def test_the_plan_is_possible(self) -> None:
        """Whatever is asked, the kernels get numbers that fit what exists."""
        for k, n, nlist, ncell, nprobe, rerank, factor, copies in itertools.product(
            (1, 10, 1000),
            (1000, 10**6),
            (1, 2, 17, 500),
            (0, 1, 2),
            (None, 1, 7, 2**31),
            (None, 1, 50, 2**31),
            (1.0, 1.2, 2.0),
            (1, 2),
        ):
            plan = search_plan(
                k=k,
                n=n,
                nlist=nlist,
                ncell=min(ncell, nlist),
                nprobe=nprobe,
                rerank=rerank,
                collect_factor=factor,
                copies=copies,
            )
            assert 1 <= plan.nprobe <= nlist
            assert k <= plan.refine <= plan.rerank <= n
            assert plan.collect >= plan.rerank
            assert 0 <= plan.cellprobe <= min(ncell, nlist)
            assert (plan.cellprobe == 0) == (ncell == 0)

    def test_enough_codes_are_kept_for_k_vectors(self) -> None:
        """k vectors may stand in 2 k codes: keeping fewer would lose some of them for good."""
        for k in (1, 10, 1000):
            assert search_plan(k=k, rerank=k, collect_factor=1.0).collect >= 2 * k
            assert search_plan(k=k, rerank=k, collect_factor=1.0, copies=1).collect == k

    def test_given_knobs_are_used(self) -> None:
        """As far as they exist: more lists than there are means all."""
        plan = search_plan(nprobe=40, rerank=150)
        assert (plan.nprobe, plan.rerank, plan.collect) == (40, 150, 300)
        assert search_plan(nprobe=5000).nprobe == 1000
        assert search_plan(rerank=3).rerank == 10  # at least k

    def test_visiting_all_lists_visits_all_cells(self) -> None:
        """Else a full probe of a two-level index would not be one."""
        assert search_plan(ncell=30, nprobe=1000).cellprobe == 30
        assert search_plan(ncell=30, nprobe=250).cellprobe == 30
        assert search_plan(ncell=30, nprobe=1).cellprobe == 12

    def test_defaults_grow_with_k_and_with_the_lists(self) -> None:
        """More neighbours, more work; the visited share falls."""
        reranks = [search_plan(k=k).rerank for k in (1, 10, 100)]
        assert reranks == sorted(reranks)
        for copies in (1, 2):
            assert [default_nprobe(nlist, copies) for nlist in (0, 1, 16)] == [0, 1, 16]
            probes = [default_nprobe(nlist, copies) for nlist in (17, 42, 500, 2000, 10**5)]
            assert probes == sorted(probes)
            shares = [default_nprobe(nlist, copies) / nlist for nlist in (500, 2000, 10**5)]
            assert shares == sorted(shares, reverse=True)
        assert default_nprobe(2000, 1) == 68  # as the docstring says
        assert default_nprobe(2000, 2) == 34  # these lists are twice as long
