"""What an index keeps of its vectors: float32, bfloat16, or its 8-bit rows alone.

    index/form.py, ivf.py, live.py -> [test_precision.py] <- a float32 index of the rounded vectors

An index that rounds must be one that holds rounded vectors and knows nothing of it: the oracle is a
float32 index to which these are added, and it is equalled bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soardb import CorruptStorage, InvalidArgument, SoarIndex
from soardb.index import tiles
from soardb.index.form import Form
from soardb.index.live import LiveIndex
from soardb.index.model import as_compared
from soardb.index.plan import BuildParams
from soardb.kernels.layout import F32, Precision
from soardb.storage.format import read_arrays, write_arrays
from tests.index.conftest import Data, clustered, true_scores

ROUNDED: tuple[Precision, ...] = ("bfloat16", "int8")


def built(data: Data, precision: Precision, vectors: F32 | None = None) -> SoarIndex:
    """An index of this precision, trained on the data; it holds `vectors`, or the data."""
    index = SoarIndex(20, data.metric, nlist=24, seed=1, precision=precision)
    index.train(data.vectors)
    index.add(data.vectors if vectors is None else vectors)
    return index


def in_order_of_id(index: SoarIndex) -> F32:
    """The vectors that an index stands for."""
    return index._rows.vectors[np.argsort(index._rows.ids)]


@pytest.mark.parametrize("precision", ROUNDED)
class TestRounded:
    def test_equals_an_index_of_the_rounded_vectors(self, data: Data, precision: Precision) -> None:
        """Lists, codes, bytes and every answer: one query, a batch, with a stop, exactly."""
        if data.metric == "cosine":
            pytest.skip("a float32 index would make the rounded vectors unit vectors anew")
        index = built(data, precision)
        other = built(data, "float32", in_order_of_id(index))
        assert np.array_equal(index._rows.store, other._rows.store)
        assert index._lists is not None
        assert other._lists is not None
        assert np.array_equal(index._lists.codes, other._lists.codes)
        several: list[dict[str, Any]] = [
            {"nprobe": 4}, {"nprobe": 24, "rerank": 200}, {"nprobe": 12, "stop": 3}, {"exact": True}
        ]  # fmt: skip
        for options in several:
            for queries in (data.queries[:1], data.queries, np.tile(data.queries, (8, 1))):
                scores, ids = index.search(queries, 10, **options)
                expected = other.search(queries, 10, **options)
                assert scores.tobytes() == expected[0].tobytes()
                assert ids.tobytes() == expected[1].tobytes()

    def test_scores_are_near_and_recall_is_high(
        self, data: Data, precision: Precision, simd: str
    ) -> None:
        """Scores are exact of what is kept, which is within 1 % of the range of true scores."""
        index = built(data, precision)
        scores, ids = index.search(data.queries, 10, nprobe=24, rerank=600)
        truth = true_scores(data.vectors, data.queries, data.metric)
        near = np.take_along_axis(truth, ids, 1)
        assert np.abs(scores - near).max() < 0.01 * np.ptp(truth)  # measured 0.005 for int8
        best = np.argsort(-truth, axis=1)[:, :10]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, best, strict=True)])
        assert recall > {"bfloat16": 0.95, "int8": 0.88}[precision]  # measured 0.97 and 0.91

    @pytest.mark.parametrize("from_bytes", [False, True])
    def test_exact_is_exact_of_what_is_kept(
        self,
        data: Data,
        precision: Precision,
        from_bytes: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whether by opening pieces of rows or from the bytes of all."""
        monkeypatch.setattr("soardb.index.ivf.pays_exactly", lambda n, d: from_bytes)
        monkeypatch.setattr("soardb.index.rows._PIECE_BYTES", 20 * 4 * 100)
        index = built(data, precision)
        scores, ids = index.search(data.queries, 25, exact=True)
        kept = in_order_of_id(index).astype(np.float64)
        queries = data.queries.astype(np.float64)
        if data.metric == "cosine":
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        truth = queries @ kept.T
        if data.metric == "l2":
            truth = -np.square(queries[:, None] - kept[None]).sum(axis=2)
        best = np.sort(truth, axis=1)[:, ::-1][:, :25]
        assert np.allclose(scores, best, rtol=1e-5, atol=1e-5)
        assert np.allclose(np.take_along_axis(truth, ids, 1), best, rtol=1e-5, atol=1e-5)

    def test_changes_keep_the_form(self, data: Data, precision: Precision) -> None:
        """Rows that move, and those that come, are kept like the first."""
        index = built(data, precision)
        form = index._rows.form
        given = as_compared(data.vectors, data.metric)
        expected = as_compared(form.rounded(given), data.metric)
        assert np.array_equal(in_order_of_id(index), expected)
        index.remove(np.arange(0, 1500, 3))
        extra = clustered(200, 20, seed=11)
        index.add(extra, np.arange(5000, 5200))
        index.validate()
        kept = np.arange(1500) % 3 > 0
        assert np.array_equal(in_order_of_id(index)[: kept.sum()], expected[kept])
        assert index.memory()["vectors"] == (
            0 if precision == "int8" else 2 * 20 * len(index._rows.whole()["vectors"])
        )

    def test_comes_back_from_its_file(
        self, data: Data, precision: Precision, tmp_path: Path
    ) -> None:
        """The same answers; the file is smaller by what is not kept; it can be changed after."""
        index = built(data, precision)
        index.tune()
        path, whole = tmp_path / "index.soar", tmp_path / "whole.soar"
        index.save(path)
        built(data, "float32").save(whole)
        saved = {"bfloat16": 2, "int8": 4}[precision] * 1500 * 20
        assert path.stat().st_size < whole.stat().st_size - saved + 40_000  # the curves
        loaded = SoarIndex.load(path)
        loaded.validate()
        assert loaded.describe()["precision"] == precision
        several: list[dict[str, Any]] = [{"target_recall": 0.9}, {"exact": True}]
        for options in several:
            before = index.search(data.queries, 10, **options)
            after = loaded.search(data.queries, 10, **options)
            assert np.array_equal(before[0], after[0])
            assert np.array_equal(before[1], after[1])
        loaded.remove([3])
        loaded.add(data.vectors[3:4], [3])
        loaded.validate()

    def test_the_live_index_keeps_base_and_delta_alike(
        self, data: Data, precision: Precision
    ) -> None:
        """Vectors, answers by the lists and exact ones, from both segments."""
        soar = built(data, precision)
        params = BuildParams(nlist=24, precision=precision)
        live = LiveIndex(20, data.metric, params, model=soar._model)
        live.append(live.code(data.vectors[:900]))
        with_base = LiveIndex(
            20,
            data.metric,
            params,
            model=soar._model,
            lists=live._delta_lists,
            base=live._delta,
        )
        with_base.append(with_base.code(data.vectors[900:]))
        rows = np.arange(1500)
        assert np.array_equal(with_base.vectors(rows), in_order_of_id(soar))
        found = with_base.search(data.queries, 10, nprobe=24, rerank=600, allowed=None)
        exact = with_base.exact(data.queries, 10, None)
        some = with_base.exact(data.queries, 10, rows)
        scores, ids = soar.search(data.queries, 10, exact=True)
        for searched in (exact, some):
            assert np.array_equal(searched.scores, scores)
            assert np.array_equal(searched.rows, ids)
        assert (found.rows == ids).mean() > 0.99  # measured 1.0
        assert with_base.memory()["delta_vectors"] == (
            0 if precision == "int8" else 2 * 20 * len(with_base._delta.whole()["vectors"])
        )

    def test_a_file_of_another_form_is_refused(
        self, data: Data, precision: Precision, tmp_path: Path
    ) -> None:
        """Bytes of one form are not read as another."""
        path = tmp_path / "index.soar"
        built(data, "float32").save(path)
        parameters, arrays = read_arrays(path, "soar-index")
        parameters["params"]["precision"] = precision
        write_arrays(path, "soar-index", parameters, arrays)
        with pytest.raises(CorruptStorage, match="expected array 'vectors'"):
            SoarIndex.load(path)


class TestWithoutPartitions:
    def test_bfloat16_holds_and_int8_keeps_float32(self, data: Data, tmp_path: Path) -> None:
        """8-bit rows need ranges that were learnt, and a small collection learns none."""
        kept: dict[Precision, Any] = {"bfloat16": np.uint16, "int8": np.float32}
        for precision, dtype in kept.items():
            index = SoarIndex(20, data.metric, precision=precision)
            index.train(data.vectors)
            index.add(data.vectors)
            assert index.nlist == 0
            assert index._rows.values.dtype == dtype
            index.save(tmp_path / "index.soar")
            loaded = SoarIndex.load(tmp_path / "index.soar")
            loaded.validate()
            before, after = index.search(data.queries, 5), loaded.search(data.queries, 5)
            assert np.array_equal(before[0], after[0])
            assert np.array_equal(before[1], after[1])

    def test_int8_is_refused_where_exact_is_asked_for(self) -> None:
        """Rather than quietly taking four times the memory."""
        with pytest.raises(InvalidArgument, match="expected precision 'float32' or 'bfloat16'"):
            SoarIndex(20, nlist=0, precision="int8")


class TestOption:
    @pytest.mark.parametrize("bad", ["float16", "", None, 8, "BFLOAT16"])
    def test_others_are_refused(self, bad: Any) -> None:
        """The message names what there is."""
        with pytest.raises(InvalidArgument, match="expected precision one of float32, bfloat16"):
            SoarIndex(20, precision=bad)

    def test_a_file_without_it_holds_float32(self, data: Data, tmp_path: Path) -> None:
        """Files of before the option."""
        path = tmp_path / "index.soar"
        index = built(data, "float32")
        index.save(path)
        parameters, arrays = read_arrays(path, "soar-index")
        del parameters["params"]["precision"]
        write_arrays(path, "soar-index", parameters, arrays)
        loaded = SoarIndex.load(path)
        assert loaded.describe()["precision"] == "float32"
        assert np.array_equal(loaded.search(data.queries)[1], index.search(data.queries)[1])

    def test_float32_is_the_default(self) -> None:
        """And its form changes nothing, not even the array."""
        assert asdict(BuildParams())["precision"] == "float32"
        x = clustered(5, 20, 0)
        assert Form().rounded(x) is x


def test_bytes_are_proven_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of int8 the bytes are all there is, so hardly a query needs a second look."""
    data = Data(clustered(1500, 20, seed=3), clustered(40, 20, seed=4), "l2")
    index = built(data, "int8")
    asked: list[int] = []
    attempt = tiles.ByteSearch._attempt

    def counted(self: Any, compared: F32, *given: Any) -> Any:
        asked.append(len(compared))
        return attempt(self, compared, *given)

    monkeypatch.setattr("soardb.index.ivf.pays_exactly", lambda n, d: True)
    monkeypatch.setattr(tiles.ByteSearch, "_attempt", counted)
    index.search(data.queries, 10, exact=True)
    assert asked == [40]
