"""Random histories of an index against a dictionary and NumPy.

    soardb/index -> [test_properties.py]

A history trains an index of any kind and metric, then adds, removes, searches, saves and loads in
any order, with duplicates, zeros, tiny and huge values. After every step the index must hold what a
dictionary holds, and every search must agree with brute force in float64.

What agreement means, by kind of search:
- any search: scores are those of the ids returned, best first, no id twice, k of them;
- exact: the k best scores there are;
- full probe: the same where k + 10 reaches n, since then every row is scored in float32. For
  smaller k the 8-bit pass may prefer a row whose score is at most two 8-bit errors lower, and that
  error is bounded by the quantizer's steps.
Tolerance everywhere: float32 rounding, `ROUNDING` times |q| |x|.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from soardb import FlatIndex, InvalidArgument, SoarIndex
from soardb.index import Index
from soardb.kernels.layout import F32
from soardb.metrics import METRICS, Metric
from tests.index.conftest import true_scores

ROUNDING = 3e-6

PROFILE = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(["flat", "exact", "plain", "soar", "soar", "two-level"])


@st.composite
def soar_options(draw: st.DrawFn, metric: Metric) -> dict[str, Any]:
    """Build options of all sorts; nlist is chosen beside them."""
    options: dict[str, Any] = {
        "soar_lambda": draw(st.sampled_from([0.3, 1.5, 20.0])),
        "dims_per_block": draw(st.sampled_from([1, 2, 3])),
        "anisotropic_threshold": draw(st.sampled_from([0.0, 0.2, 0.8])),
        "include_primary": draw(st.booleans()),
        "overretrieve": draw(st.sampled_from([1.0, 1.3, 2.0, 2.0, 2.0])),
        "init": draw(st.sampled_from(["random", "kmeans++"])),
        "spherical": draw(st.booleans()),
        "iterations": draw(st.sampled_from([1, 4])),
        "points_per_centroid": draw(st.sampled_from([2, 256, 256, 256])),
        "seed": draw(st.integers(0, 3)),
    }
    if metric != "l2":
        options["avq_eta"] = draw(st.sampled_from([None, 1.0, 2.5]))
    return options


def make_vectors(n: int, d: int, shape: str, seed: int) -> F32:
    """(n, d) float32 of one character; none of them zero unless that is the character."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) + 0.3
    if shape == "few places":
        rows = rows[rng.integers(0, min(n, 3), n)] if n else rows
    elif shape == "many scales":
        rows *= 10.0 ** rng.uniform(-6, 6, size=(n, 1))
    elif shape == "tiny":
        rows *= 1e-12
    elif shape == "huge":
        rows *= 1e15
    elif shape == "whole numbers":
        rows = rng.integers(1, 4, size=(n, d)).astype(np.float64)
    elif shape == "zeros":
        rows *= 0
    return rows.astype(np.float32)


SHAPES = st.sampled_from(
    ["cloud", "cloud", "few places", "many scales", "tiny", "huge", "whole numbers"]
)


class History(RuleBasedStateMachine):
    """One index, and the dictionary of what it should hold."""

    index: Index
    held: dict[int, F32]
    training: F32
    d: int
    metric: Metric

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    # ------------------------------------------------------------ building

    @initialize(data=st.data(), kind=KINDS, metric=st.sampled_from(METRICS), d=st.integers(2, 9))
    def make(self, data: st.DataObject, kind: str, metric: Metric, d: int) -> None:
        self.d, self.metric, self.held = d, metric, {}
        n = data.draw(st.integers(1, 60), label="training vectors")
        shape = data.draw(SHAPES, label="character")
        self.training = make_vectors(n, d, shape, data.draw(SEEDS, label="seed"))
        if kind == "flat":
            self.index = FlatIndex(d, metric)
        elif kind == "exact":
            self.index = SoarIndex(d, metric, nlist=0)
        else:
            options = data.draw(soar_options(metric), label="options")
            options["nlist"] = data.draw(st.integers(1, min(n, 12)), label="nlist")
            if kind == "plain":
                options["soar_lambda"] = 0.0
            if kind == "two-level":
                options["ncell"] = data.draw(st.integers(1, options["nlist"]), label="ncell")
            self.index = SoarIndex(d, metric, **options)
        self.index.train(self.training)

    @precondition(lambda self: not self.held)
    @rule(n=st.integers(12, 40), shape=SHAPES, seed=SEEDS)
    def train_again(self, n: int, shape: str, seed: int) -> None:
        """An empty index may be trained anew."""
        self.training = make_vectors(n, self.d, shape, seed)
        self.index.train(self.training)

    # ------------------------------------------------------------ changes

    def put(self, vectors: F32, ids: list[int] | None) -> None:
        self.index.add(vectors, ids)
        if ids is None:
            first = max(self.held, default=-1) + 1
            ids = list(range(first, first + len(vectors)))
        self.held |= dict(zip(ids, vectors, strict=True))

    @rule(n=st.integers(0, 30), shape=SHAPES, seed=SEEDS, numbered=st.booleans())
    def add(self, n: int, shape: str, seed: int, numbered: bool) -> None:
        """New vectors of any character, under the next numbers or under free ones in any order."""
        free = np.setdiff1d(np.arange(1000), list(self.held))
        ids = np.random.default_rng(seed).permutation(free)[:n].tolist()
        self.put(make_vectors(n, self.d, shape, seed), None if numbered else ids)

    @rule(most=st.integers(1, 60))
    def add_what_it_was_trained_on(self, most: int) -> None:
        """The usual case, and the one for which 8-bit errors are bounded."""
        self.put(self.training[:most], None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), times=st.integers(1, 20))
    def add_copies(self, data: st.DataObject, times: int) -> None:
        """The same vector under other ids: every score ties."""
        one = self.held[data.draw(st.sampled_from(sorted(self.held)), label="of")]
        self.put(np.repeat(one[None], times, axis=0), None)

    @precondition(lambda self: self.metric != "cosine")
    @rule(n=st.integers(1, 3))
    def add_zeros(self, n: int) -> None:
        self.put(make_vectors(n, self.d, "zeros", 0), None)

    @rule(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=9))
    def add_any_numbers(self, values: list[float]) -> None:
        """Denormals, minus zero and the like, one vector."""
        vector = np.resize(np.array(values, np.float32), (1, self.d))
        if self.metric != "cosine" or vector.any():
            self.put(vector, None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seed=SEEDS)
    def refuse_to_add(self, data: st.DataObject, seed: int) -> None:
        """A held id, a repeated one, a NaN: nothing at all is added."""
        vectors = make_vectors(3, self.d, "cloud", seed)
        held = data.draw(st.sampled_from(sorted(self.held)), label="held")
        for ids in ([1000, held, 1001], [1000, 1001, 1000], [1000, -1, 1001]):
            with pytest.raises(InvalidArgument):
                self.index.add(vectors, ids)
        vectors[2, 1] = np.nan
        with pytest.raises(InvalidArgument):
            self.index.add(vectors)

    @rule(seed=SEEDS, share=st.sampled_from([0.05, 0.3, 0.9, 1.0]))
    def remove(self, seed: int, share: float) -> None:
        """A random part of the ids, together with some that are not there, in any order."""
        rng = np.random.default_rng(seed)
        gone = [i for i in self.held if rng.random() < share]
        strangers = [i for i in rng.integers(0, 300, 5).tolist() if i not in self.held]
        asked = rng.permutation(np.array(gone + strangers + gone[:2], np.int64))
        assert self.index.remove(asked) == len(gone)
        for i in gone:
            del self.held[i]

    @rule()
    def save_and_load(self) -> None:
        """The loaded index answers bit for bit the same, and takes the place of the first."""
        path = Path(self.folder.name) / "index"
        self.index.save(path)
        loaded = type(self.index).load(path)
        if self.held:
            queries = make_vectors(3, self.d, "cloud", 1)
            k = min(5, len(self.held))
            for exact in (False, True):
                before = self.index.search(queries, k, nprobe=2, exact=exact)
                after = loaded.search(queries, k, nprobe=2, exact=exact)
                assert np.array_equal(before[0], after[0])
                assert np.array_equal(before[1], after[1])
        self.index = loaded

    # ------------------------------------------------------------ searches

    def ask(
        self, data: st.DataObject, shape: str, seed: int
    ) -> tuple[F32, np.ndarray, np.ndarray, np.ndarray]:
        """Queries (held vectors among them), held ids, true scores (nq, n), tolerance (nq, n)."""
        queries = make_vectors(data.draw(st.integers(1, 6), label="nq"), self.d, shape, seed)
        queries[0] = self.held[data.draw(st.sampled_from(sorted(self.held)), label="query")]
        if self.metric == "cosine" and not queries[0].any():
            queries[0] = 1
        ids = np.array(sorted(self.held))
        vectors = np.array([self.held[i] for i in ids.tolist()])
        truth = true_scores(vectors, queries, self.metric)
        x = np.linalg.norm(vectors.astype(np.float64), axis=1)
        q = np.linalg.norm(queries.astype(np.float64), axis=1)
        sizes = {
            "cosine": np.ones_like(truth),
            "dot": q[:, None] * x,
            "l2": np.square(q[:, None] + x),
        }
        return queries, ids, truth, ROUNDING * sizes[self.metric] + 1e-37

    def check(
        self,
        answer: tuple[F32, np.ndarray],
        k: int,
        ids: np.ndarray,
        truth: np.ndarray,
        tolerance: np.ndarray,
    ) -> None:
        """What every search promises."""
        scores, found = answer
        assert scores.shape == found.shape == (len(truth), k)
        assert (np.diff(scores, axis=1) <= 0).all()
        for i in range(len(truth)):
            assert len(set(found[i].tolist())) == k
            assert np.isin(found[i], ids).all()
            place = np.searchsorted(ids, found[i])
            assert (np.abs(scores[i] - truth[i, place]) <= tolerance[i, place]).all()

    def check_best(
        self, scores: F32, truth: np.ndarray, tolerance: np.ndarray, slack: np.ndarray
    ) -> None:
        """The k scores are the k best, rank by rank, up to the tolerance and slack (nq,)."""
        k = scores.shape[1]
        best = np.sort(truth, axis=1)[:, ::-1][:, :k]
        room = tolerance.max(axis=1) + slack
        assert (scores >= best - room[:, None]).all()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), shape=SHAPES, seed=SEEDS, threads=st.sampled_from([1, 3]))
    def search_exactly(self, data: st.DataObject, shape: str, seed: int, threads: int) -> None:
        queries, ids, truth, tolerance = self.ask(data, shape, seed)
        k = data.draw(st.integers(1, len(ids)), label="k")
        answer = self.index.search(queries, k, exact=True, threads=threads)
        self.check(answer, k, ids, truth, tolerance)
        self.check_best(answer[0], truth, tolerance, np.zeros(len(queries)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), shape=SHAPES, seed=SEEDS, threads=st.sampled_from([1, 3]))
    def search_somewhere(self, data: st.DataObject, shape: str, seed: int, threads: int) -> None:
        """Any knobs: fewer neighbours may be found, none may be wrong."""
        queries, ids, truth, tolerance = self.ask(data, shape, seed)
        k = data.draw(st.integers(1, len(ids)), label="k")
        nprobe = data.draw(st.sampled_from([None, 1, 2, 5, 10**9]), label="nprobe")
        rerank = data.draw(st.sampled_from([None, 1, 7, 10**9]), label="rerank")
        answer = self.index.search(queries, k, nprobe=nprobe, rerank=rerank, threads=threads)
        self.check(answer, k, ids, truth, tolerance)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), shape=SHAPES, seed=SEEDS)
    def search_everywhere(self, data: st.DataObject, shape: str, seed: int) -> None:
        """All lists, all rows scored in 8 bits; where k + max(4, k // 4) reaches n, in float32."""
        queries, ids, truth, tolerance = self.ask(data, shape, seed)
        n = len(ids)
        for k in {max(1, n - 4), n, data.draw(st.integers(1, n), label="k")}:
            answer = self.index.search(queries, k, nprobe=10**9, rerank=10**9)
            self.check(answer, k, ids, truth, tolerance)
            slack = np.zeros(len(queries))
            if k + max(4, k // 4) < n:
                slack = self.eight_bit_slack(queries)
            if not self.may_drop_codes():
                self.check_best(answer[0], truth, tolerance, slack)

    def may_drop_codes(self) -> bool:
        """Whether the scan keeps fewer codes than two of every row, even at rerank n."""
        index = self.index
        return (
            isinstance(index, SoarIndex) and index.soar_lambda > 0 and index.params.overretrieve < 2
        )

    def eight_bit_slack(self, queries: F32) -> np.ndarray:
        """(nq,) twice the biggest error of an 8-bit score; infinite where rows were clipped."""
        index = self.index
        if not isinstance(index, SoarIndex) or index._model is None:
            return np.zeros(len(queries))
        model = index._model
        offset, scale = model.scalar.offset.astype(float), model.scalar.scale.astype(float)
        centred = index._rows.vectors.astype(float) - model.mean
        overshoot = np.abs(centred - offset) - 128 * scale
        if (overshoot > 1e-6 * np.abs(offset) + 1e-6 * scale).any():
            return np.full(len(queries), np.inf)
        q = queries.astype(float)
        if self.metric == "cosine":
            q /= np.linalg.norm(q, axis=1, keepdims=True)
        elif self.metric == "l2":
            q -= model.mean
        folded = np.abs(q) * scale
        rows = 0.5 * folded.sum(axis=1)  # each byte is off by half a step
        query = 0.5 * folded.max(axis=1) / 127 * 128 * self.d  # and so is each byte of the query
        factor = 2.0 if self.metric == "l2" else 1.0  # a score is twice the product
        result: np.ndarray = 2 * factor * (rows + query) * (1 + 1e-4)
        return result

    # ------------------------------------------------------------ at all times

    @invariant()
    def holds_what_it_should(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.held)
        self.index.validate()
        assert all(size >= 0 for size in self.index.memory().values())
        if not self.held:
            with pytest.raises(InvalidArgument, match="empty"):
                self.index.search(np.ones((1, self.d)), 1)


class TestHistories:
    def test_an_index_is_a_dictionary_that_can_be_searched(self) -> None:
        """A hundred random histories of up to 25 steps, the same ones in every run."""
        run_state_machine_as_test(History, settings=PROFILE)
