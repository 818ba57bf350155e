"""A collection loaded from Parquet files: one model for all shards, each point once, going on.

conftest.py (a cluster, a bucket) -> [test_build.py] -> cluster/building.py, parquet.py, training.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import soardb
from soardb.cluster import Cluster, building, parquet
from soardb.cluster.calls import shard_name
from soardb.cluster.parquet import open_source
from soardb.cluster.training import _Spread, shares
from soardb.clustering import kmeans, lloyd
from soardb.core import Settings
from soardb.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    InvalidArgument,
    NotFound,
    SoarError,
)
from soardb.evaluate import ground_truth
from soardb.exchange import export_points
from soardb.kernels.layout import F32
from soardb.storage.format import map_arrays
from tests.cluster.conftest import SHARDS, folder_of

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

D, N, GROUP = 16, 6_000, 500
RNG = np.random.default_rng(5)
VECTORS: F32 = (
    RNG.normal(size=(60, D))[RNG.integers(60, size=N)] + 0.5 * RNG.normal(size=(N, D))
).astype(np.float32)
INDEX = {"nlist": 48}


def table(rows: slice | np.ndarray, **columns: Any) -> Any:
    """Points as a user's file might have them."""
    ids, vectors = np.arange(N)[rows], VECTORS[rows]
    flat = pa.array(vectors.reshape(-1))
    made = {
        "id": pa.array(ids),
        "vector": pa.FixedSizeListArray.from_arrays(flat, D),
        "n": pa.array(ids % 7),
    }
    return pa.table({k: v for k, v in (made | columns).items() if v is not None})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All points in two files of six row groups each."""
    made: Path = tmp_path_factory.mktemp("source")
    pq.write_table(table(slice(0, N // 2)), made / "a.parquet", row_group_size=GROUP)
    (made / "below").mkdir()
    pq.write_table(table(slice(N // 2, N)), made / "below/b.parquet", row_group_size=GROUP)
    return made


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """A row group is three parts; how many rows a part has."""
    rows = 200
    monkeypatch.setattr(parquet, "_PART_BYTES", rows * 4 * D)
    monkeypatch.setattr(parquet, "_SHARD_BYTES", 0)
    return rows


def places_of(cluster: Cluster) -> list[Any]:
    """The centroids of each shard's only collection, as its generation has them."""
    found = []
    for shard in range(SHARDS):
        (file,) = folder_of(cluster, shard).glob("*/index/*.generation")
        arrays = map_arrays(file, "generation").arrays
        found.append({name: np.array(arrays[name]) for name in ("places", "codebook", "mean")})
    return found


class TestLoad:
    def test_all_shards_have_one_model_and_it_finds_what_a_local_build_finds(
        self, empty: Cluster, folder: Path, tmp_path: Path
    ) -> None:
        """The recall of every number of lists is that of one collection of all points."""
        seen: list[str] = []
        loaded = empty.load(
            "c",
            folder,
            metric="l2",
            schema={"n": "int"},
            index=INDEX,
            progress=lambda stage, share: seen.append(stage),
        )
        stages = ["sample", "k-means", "codebooks", "load", "build", "done"]
        assert list(dict.fromkeys(seen)) == stages
        assert loaded.count() == loaded.seq == N
        assert loaded.count("n = 3") == sum(i % 7 == 3 for i in range(N))
        (point,) = loaded.get([4321], with_vectors=True)
        assert point is not None
        assert point.payload == {"n": 4321 % 7}
        assert (point.vector == VECTORS[4321]).all()
        models = places_of(empty)
        assert models[0]["places"].shape == (48, D)
        for other in models[1:]:
            for name, array in models[0].items():
                assert (other[name] == array).all(), name
        assert loaded.stats()["since_generation"] == 0
        queries = VECTORS[::40] + 0.2 * RNG.normal(size=(N // 40, D)).astype(np.float32)
        _, truth = ground_truth(VECTORS, queries, 10, "l2")
        with soardb.connect(tmp_path / "local") as database:
            local = database.create_collection("c", D, "l2", index=INDEX)
            local.upsert(np.arange(N), VECTORS)
            local.compact()
            for nprobe in (1, 2, 4, 8):
                recalls = []
                for collection, rerank in ((local, 400), (loaded, 400 // SHARDS)):
                    hits = collection.search(
                        queries, 10, nprobe=nprobe, rerank=rerank, **_whole(collection)
                    )
                    each = [
                        np.isin(true, one.ids).mean() for true, one in zip(truth, hits, strict=True)
                    ]
                    recalls.append(float(np.mean(each)))
                assert abs(recalls[0] - recalls[1]) < 0.03, (nprobe, recalls)  # measured 0.012

    def test_the_same_call_again_does_nothing(self, empty: Cluster, folder: Path) -> None:
        """Not even after points were deleted: each part was written, once."""
        loaded = empty.load("c", folder / "a.parquet", metric="l2")
        loaded.delete([1, 2])
        seen: list[str] = []
        again = empty.load("c", folder / "a.parquet", progress=lambda s, _: seen.append(s))
        assert again.count() == N // 2 - 2
        assert seen == []

    def test_files_may_be_named_in_many_ways(
        self, empty: Cluster, folder: Path, bucket: str, tmp_path: Path
    ) -> None:
        """A pattern, a list, a URI; other columns; an export says what it is."""
        one = open_source(str(folder / "*.parquet"), "id", "vector", SHARDS)
        assert one.rows == N  # a pattern's * is any text, as in an object store
        assert open_source(folder / "[a]*", "id", "vector", SHARDS).rows == N // 2
        both = [folder / "a.parquet", folder / "below"]
        assert open_source(both, "id", "vector", SHARDS).digest == one.digest
        assert open_source(f"file://{folder}", "id", "vector", SHARDS).digest == one.digest
        ids = pa.array([f"p{i}" for i in range(300)])
        vectors = pa.array([list(map(float, row)) for row in VECTORS[:300]])
        other = pa.table({"key": ids, "embedding": vectors, "id": pa.array(range(300))})
        from pyarrow.fs import FileSystem

        system, place = FileSystem.from_uri(bucket)
        pq.write_table(other, f"{place}/some/part-1.parquet", filesystem=system)
        where, _, options = bucket.partition("?")
        names: Any = {"id_column": "key", "vector_column": "embedding", "metric": "dot"}
        loaded = empty.load("s", f"{where}/some/*.parquet?{options}", **names)
        (point,) = loaded.get(["p7"])
        assert point is not None
        assert (loaded.count(), point.payload, loaded.metric) == (300, {"id": 7}, "dot")
        with soardb.connect(tmp_path / "local") as database:
            local = database.create_collection("c", D, "l2", schema={"n": "int"})
            local.upsert(np.arange(50), VECTORS[:50], {"n": list(range(50)), "x": ["y"] * 50})
            export_points(local, tmp_path / "out.parquet")
        brought = empty.load("e", tmp_path / "out.parquet")
        assert (brought.metric, brought.schema) == ("l2", {"n": "int"})
        (point,) = brought.get([3])
        assert point is not None
        assert point.payload == {"n": 3, "x": "y"}
        empty.snapshot("e", tmp_path / "snapshot")
        assert empty.restore(tmp_path / "snapshot", "again").count() == 50


def _whole(collection: Any) -> dict[str, Any]:
    """Let shards be asked for all, so that the merge loses nothing."""
    return {} if isinstance(collection, soardb.Collection) else {"merge_recall": 1.0}


class TestGoingOn:
    def test_after_the_driver_was_killed(
        self, empty: Cluster, folder: Path, small_parts: int
    ) -> None:
        """What is in stays in, the model is not learnt again, and nothing comes twice."""
        program = (
            "import os, signal, sys\n"
            "from soardb.cluster import Cluster, parquet\n"
            "parquet._PART_BYTES, parquet._SHARD_BYTES = int(sys.argv[3]), 0\n"
            "def kill(stage, share):\n"
            "    if stage == 'load' and share > 0.3:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "Cluster('ray://auto', storage=sys.argv[1]).load(\n"
            "    'c', sys.argv[2], metric='l2', index={'nlist': 48}, parallel=1, progress=kill)\n"
        )
        arguments = [empty.storage, str(folder), str(small_parts * 4 * D)]
        run = subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments], check=False, cwd=empty.storage
        )
        assert run.returncode == -signal.SIGKILL
        assert 0 < empty.get_collection("c").count() < N
        seen: list[tuple[str, float]] = []
        loaded = empty.load("c", folder, progress=lambda *said: seen.append(said))
        assert {stage for stage, _ in seen} == {"load", "build", "done"}
        assert seen[0][1] >= 0.2
        assert loaded.count() == loaded.seq == N
        (model, *others) = places_of(empty)
        assert model["places"].shape == (48, D)
        assert all((other["places"] == model["places"]).all() for other in others)
        assert [file.name for file in Path(empty.storage, "loads").glob(f"{loaded.id}*")] == [
            f"{loaded.id}.json"
        ]

    def test_shards_that_die_are_waited_for(
        self, empty: Cluster, folder: Path, small_parts: int
    ) -> None:
        """While points are sent, and while indexes are built; the load does not even end."""
        killed: list[str] = []

        def kill(stage: str, share: float) -> None:
            if stage in killed or (stage, share) == ("load", 0.0):
                return
            if stage in ("load", "build"):
                killed.append(stage)
                number = len(killed)
                os.kill(empty.processes()[shard_name(number)], signal.SIGKILL)

        loaded = empty.load("c", folder, metric="l2", index=INDEX, progress=kill)
        assert killed == ["load", "build"]
        assert loaded.count() == loaded.seq == N
        (model, *others) = places_of(empty)
        assert all((other["places"] == model["places"]).all() for other in others)
        assert not list(Path(empty.storage).glob("shards/*/*/index/model.given"))

    def test_after_it_was_stopped(self, empty: Cluster, folder: Path, small_parts: int) -> None:
        """At any stage."""
        stop = threading.Event()

        def stop_at(wanted: str) -> Callable[[str, float], None]:
            return lambda stage, share: stop.set() if stage == wanted and share else None

        for wanted in ("k-means", "load"):
            with pytest.raises(Closed, match="call again to go on"):
                empty.load(
                    "c", folder, metric="l2", index=INDEX, stop=stop, progress=stop_at(wanted)
                )
            stop.clear()
        assert empty.load("c", folder, parallel=3).seq == N

    def test_a_source_that_has_changed_is_refused(self, empty: Cluster, tmp_path: Path) -> None:
        """Half of one and half of another would be neither."""
        file = tmp_path / "x.parquet"
        pq.write_table(table(slice(0, 100)), file)
        empty.load("c", file)
        pq.write_table(table(slice(0, 120)), file)
        with pytest.raises(AlreadyExists, match=r"loaded from .*x.parquet, or these files have"):
            empty.load("c", file)


class TestMemory:
    def test_a_row_group_is_read_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a row group of 32 MiB, Arrow holds a few parts at any moment, however large it is."""
        part_bytes, n = 2**21, 2**19
        monkeypatch.setattr(parquet, "_PART_BYTES", part_bytes)
        monkeypatch.setattr(parquet, "_SHARD_BYTES", 0)
        many = np.tile(VECTORS, (n // N + 1, 1))[:n]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(many.reshape(-1)), D)
        file = tmp_path / "x.parquet"
        pq.write_table(
            pa.table({"id": pa.array(np.arange(n)), "vector": vectors}),
            file,
            row_group_size=n,
            use_dictionary=False,
        )
        del many, vectors
        source = open_source(file, "id", "vector", SHARDS)
        settings = Settings.asked("c", D, "l2", None, None, None)
        assert len(source.groups) == 1
        before = pa.total_allocated_bytes()
        held, rows = [], 0
        for part in source.read(source.groups[0], lambda number: False, settings):
            rows += len(part.batch.ids)
            held.append(pa.total_allocated_bytes() - before)
        assert rows == n
        assert source.parts == 16
        assert max(held) < 6 * part_bytes  # measured 4.6

    def test_so_many_row_groups_are_under_way_as_was_said(
        self,
        empty: Cluster,
        folder: Path,
        small_parts: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """However fast files are read, no more than that waits for the shards."""
        begun, most = [], []
        real = building._loaded

        class Counted:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                begun.append(real.remote(*arguments))
                _, waiting = ray.wait(begun, num_returns=len(begun), timeout=0)
                most.append(len(waiting))
                return begun[-1]

        monkeypatch.setattr(building, "_loaded", Counted)
        empty.load("c", folder, parallel=3)
        assert len(begun) == 12
        assert max(most) <= 3

    def test_a_sample_is_drawn_from_all_row_groups_by_the_seed(self, folder: Path) -> None:
        """In proportion, and again the same."""
        source = open_source(folder, "id", "vector", SHARDS)
        one, again, other = (shares(source, 1_000, seed) for seed in (1, 1, 2))
        assert sum(part.count for part in one) == 1_000
        assert {part.count for part in one} == {83, 84}
        rows = [np.concatenate([p.rows() for p in drawn]) for drawn in (one, again, other)]
        assert (rows[0] == rows[1]).all()
        assert (rows[0] != rows[2]).any()
        assert sum(part.count for part in shares(source, 10**9, 0)) == N


class TestSource:
    def test_what_writers_hide_is_not_of_a_folder(self, tmp_path: Path) -> None:
        """Half-written files, whatever folder they are in; by name they can be had."""
        pq.write_table(table(slice(0, 10)), tmp_path / "a [1].parquet")
        (tmp_path / "_temporary").mkdir()
        for name in ("_temporary/b.parquet", ".c.parquet"):
            pq.write_table(table(slice(10, 30)), tmp_path / name)
        assert open_source(tmp_path, "id", "vector", SHARDS).rows == 10
        assert open_source(tmp_path / "a [1].parquet", "id", "vector", SHARDS).rows == 10
        assert open_source(tmp_path / ".c.parquet", "id", "vector", SHARDS).rows == 20

    def test_parts_grow_with_the_shards_among_which_they_are_divided(self, folder: Path) -> None:
        """A message is worth its while, and a part stays small."""
        rows = [open_source(folder, "id", "vector", n).part_rows for n in (1, 8, 32, 4096)]
        assert [count * 4 * D // 2**20 for count in rows] == [8, 8, 32, 61]


class TestTraining:
    @pytest.mark.parametrize("init", ["random", "kmeans++"])
    def test_lloyd_over_parts_is_lloyd_over_all(self, ray_here: None, init: Any) -> None:
        """The same draws, the same moves of small lists; sums are added in another order."""
        ends = [0, 100, 900, 2_000]
        parts = [ray.put(VECTORS[a:b]) for a, b in pairwise(ends)]
        spread = _Spread(parts, np.diff(ends).tolist(), 1)
        said = {"iterations": 6, "init": init, "spherical": False}
        found = lloyd(spread, 40, np.random.default_rng(3), **said)
        expected = kmeans(VECTORS[:2_000], 40, seed=3, iterations=6, init=init)
        assert np.abs(found - expected).max() < 1e-4


def _bad(tmp_path: Path, kind: str) -> Path:
    """A folder with a sound file and one that is not."""
    pq.write_table(table(slice(0, 100)), tmp_path / "a.parquet", row_group_size=50)
    rows = slice(100, 200)
    vectors, ids = VECTORS[rows].copy(), np.arange(N)[rows].copy()
    columns: dict[str, Any] = {}
    lists = [list(map(float, row)) for row in vectors]
    match kind:
        case "nan":
            vectors[77, 3] = np.nan
        case "zero":
            vectors[77] = 0
        case "twice":
            ids[77] = ids[60]
        case "elsewhere":
            ids[77] = 42
        case "missing":
            columns["vector"] = None
        case "short":
            columns["vector"] = pa.FixedSizeListArray.from_arrays(
                pa.array(vectors[:, :8].reshape(-1)), 8
            )
        case "ragged":
            lists[77].pop()
            columns["vector"] = pa.array(lists)
        case "null":
            lists[77] = None  # type: ignore[call-overload]
            columns["vector"] = pa.array(lists)
        case "text":
            columns["id"] = pa.array([str(i) for i in ids])
        case "floats":
            columns["id"] = pa.array(ids.astype(np.float64))
        case "field":
            columns["n"] = pa.array(["x" if i == 77 else None for i in range(100)])
    made = {"id": pa.array(ids), "vector": None}
    if "vector" not in columns:
        flat = pa.array(vectors.reshape(-1))
        made["vector"] = pa.FixedSizeListArray.from_arrays(flat, D)
    bad = tmp_path / "b.parquet"
    pq.write_table(table(rows, **(made | columns)), bad, row_group_size=50)
    if kind == "torn":
        bad.write_bytes(bad.read_bytes()[:-9])
    return tmp_path


class TestBadInput:
    @pytest.mark.parametrize(
        ("kind", "error", "says"),
        [
            ("nan", InvalidArgument, "b.parquet, row group 1, row 77: .*NaN"),
            ("zero", InvalidArgument, "b.parquet, row group 1, row 77: .*zero vector"),
            ("twice", AlreadyExists, "b.parquet, row group 1, row 77: .*160 is in row 60, too"),
            ("elsewhere", AlreadyExists, "row 77: .*42 is in another part|row 42: .*another part"),
            ("ragged", InvalidArgument, "b.parquet, row group 1, row 77: .*16 numbers"),
            ("null", InvalidArgument, "b.parquet, row group 1, row 77: .*null"),
            ("field", InvalidArgument, "b.parquet, row group 1, row 77: .*'n'"),
            ("missing", InvalidArgument, "b.parquet: expected one column 'vector', got"),
            ("short", InvalidArgument, "b.parquet: expected columns as in .*vectors of 8 numbers"),
            ("text", InvalidArgument, "b.parquet: expected columns as in .*str ids"),
            ("floats", InvalidArgument, "b.parquet: expected ids of integers or strings"),
            ("torn", CorruptStorage, "b.parquet: expected a sound Parquet file"),
        ],
    )
    def test_is_refused_with_its_place(
        self,
        empty: Cluster,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        error: type[SoarError],
        says: str,
    ) -> None:
        """What footers tell, before a collection is made; what values tell, with the row."""
        monkeypatch.setattr(parquet, "_PART_BYTES", 30 * 4 * D)
        monkeypatch.setattr(parquet, "_SHARD_BYTES", 0)
        schema = {"n": "int"} if kind == "field" else None
        with pytest.raises(error, match=says) as caught:
            empty.load("c", _bad(tmp_path, kind), schema=schema)
        assert "row 0" not in str(caught.value)
        if "row group" in str(caught.value):
            assert "A part of the points is in 'c': drop it" in str(caught.value)
        else:
            assert empty.list_collections() == []

    def test_there_must_be_files_and_no_points(self, empty: Cluster, tmp_path: Path) -> None:
        """And what is told of a collection that is there must fit."""
        for nothing in (tmp_path, tmp_path / "none.parquet", str(tmp_path / "*.parquet")):
            with pytest.raises(NotFound, match="expected Parquet files"):
                empty.load("c", nothing)
        with pytest.raises(InvalidArgument, match="empty list"):
            empty.load("c", [])
        file = tmp_path / "x.parquet"
        pq.write_table(table(slice(0, 10)), file)
        held = empty.create_collection("c", D, "l2")
        for other in ({"metric": "dot"}, {"index": {"nlist": 3}}, {"schema": {"n": "int"}}):
            with pytest.raises(AlreadyExists, match="is there with"):
                empty.load("c", file, **other)
        held.upsert([77], VECTORS[:1])
        with pytest.raises(AlreadyExists, match="'c' without points, to load it; it has some"):
            empty.load("c", file)
        assert held.count() == 1
