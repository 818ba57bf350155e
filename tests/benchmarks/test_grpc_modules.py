"""The modules for ann-benchmarks and VectorDBBench, driven as their runners drive them.

    benchmarks/ann_benchmarks/soardb_grpc, benchmarks/vectordbbench -> [test_grpc_modules.py]

Servers are real ones. Of the two projects only the few names that our modules import are stood in
for, where they are not installed. That their own main programs run to the end was tried by hand;
what they reported is in the README files of those folders.
"""

from __future__ import annotations

import enum
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydantic
import pytest
import yaml

import soardb
from benchmarks.dataset_files import Dataset
from benchmarks.exact import ground_truth
from benchmarks.vectordbbench import dataset as files
from benchmarks.vectordbbench import run as launcher
from soardb.errors import InvalidArgument
from tests.service.conftest import Served

N, D, QUERIES, K = 3_000, 24, 60, 10
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Points around 40 centres and queries of the same kind, with their exact neighbours."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(40, D))
    rows = centres[rng.integers(0, 40, N + QUERIES)] + rng.normal(size=(N + QUERIES, D)) / 2
    train, test = np.split(rows.astype(np.float32), [N])
    neighbours, distances = ground_truth(train, test, "cosine")
    return Dataset("small-24-angular", "cosine", train, test, neighbours, distances, None, "")


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[pytest.MonkeyPatch]:
    """Modules put in place for this file, and what was imported through them, removed after it."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        yield patch
        for name in set(sys.modules) - before:
            if name.startswith(("ann_benchmarks", "vectordb_bench", "benchmarks.ann_benchmarks")):
                del sys.modules[name]


def stand_in(patch: pytest.MonkeyPatch, name: str, **names: Any) -> ModuleType:
    """A module of that name in sys.modules."""
    module = ModuleType(name)
    module.__path__ = []
    for key, value in names.items():
        setattr(module, key, value)
    patch.setitem(sys.modules, name, module)
    return module


def recall(found: Any, true: Any) -> float:
    """The mean share of the true neighbours that were found."""
    shares = [len(set(ids) & set(best)) / len(best) for ids, best in zip(found, true, strict=True)]
    return float(np.mean(shares))


# ---- ann-benchmarks ----


@pytest.fixture(scope="module")
def module(stand_ins: pytest.MonkeyPatch) -> Any:
    """The module of soardb_grpc."""
    if find_spec("ann_benchmarks") is None:
        for name in ("", ".algorithms", ".algorithms.base"):
            stand_in(stand_ins, f"ann_benchmarks{name}")
        stand_in(stand_ins, "ann_benchmarks.algorithms.base.module", BaseANN=object)
    return importlib.import_module("benchmarks.ann_benchmarks.soardb_grpc.module")


@pytest.fixture(scope="module")
def fitted(module: Any, data: Dataset) -> Iterator[Any]:
    """The algorithm with all rows on its server."""
    made = module.SoarDBServer("angular", {"nlist": 50, "soar_lambda": 1.0})
    assert made.get_memory_usage() == 0
    made.fit(data.train)
    yield made
    made.done()


class TestAnnBenchmarks:
    def test_it_finds_the_neighbours_one_call_a_query(self, fitted: Any, data: Dataset) -> None:
        """Ids are row numbers, each once, at most as many as were asked for."""
        fitted.set_query_arguments((15, 80))
        found = [fitted.query(q, K) for q in data.test]
        assert all(len(ids) == len(set(ids)) == K for ids in found)
        assert recall(found, data.neighbors[:, :K]) > 0.97  # measured 1.0

    def test_query_arguments_are_obeyed(self, fitted: Any, data: Dataset) -> None:
        """The curve is swept on one build, and a point is known by its name."""
        fitted.set_query_arguments((1, 10))
        name = fitted.name
        few = recall([fitted.query(q, K) for q in data.test], data.neighbors[:, :K])
        fitted.set_query_arguments((50, 200))
        all_of_them = recall([fitted.query(q, K) for q in data.test], data.neighbors[:, :K])
        assert few < 0.95 < 0.999 < all_of_them  # measured 0.585 and 1.0
        assert fitted.name != name

    def test_a_batch_finds_what_single_queries_find(
        self, module: Any, fitted: Any, data: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In parts of any size, the last one smaller."""
        monkeypatch.setattr(module, "QUERIES", 25)
        fitted.set_query_arguments((10, 50))
        fitted.batch_query(data.test, K)
        together = fitted.get_batch_results()
        assert len(together) == QUERIES
        for ids, q in zip(together, data.test, strict=True):
            assert list(ids) == list(fitted.query(q, K))

    def test_the_index_is_built_when_fit_returns(self, fitted: Any) -> None:
        """Else the first queries would be slower, and others than those that are reported."""
        stats = fitted._collection.stats()
        assert (stats["points"], stats["since_generation"], stats["nlist"]) == (N, 0, 50)
        assert fitted.get_additional()["nlist"] == 50
        assert fitted.get_memory_usage() > 10_000  # kilobytes of the server's process

    def test_done_stops_the_server_and_leaves_nothing(self, module: Any, data: Dataset) -> None:
        """A run has many algorithms, one after the other, on one machine."""
        made = module.SoarDBServer("euclidean", {})
        made.fit(data.train[:100])
        server = made._server
        assert server.process.poll() is None
        made.done()
        assert server.process.poll() is not None
        assert not server._folder.exists()
        made.done()

    def test_a_server_that_does_not_start_says_why(
        self, module: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The harness goes on with the next algorithm; its log must tell what was wrong."""
        monkeypatch.setattr(module.Server, "_options", ("--no-such-option",))
        with pytest.raises(RuntimeError, match="no-such-option"):
            module.Server()

    @pytest.mark.parametrize("folder", ["soardb", "soardb_grpc"])
    def test_its_config_names_what_is_there(self, module: Any, folder: str) -> None:
        """A wrong name is skipped by the harness with no more than a warning."""
        path = ROOT / "benchmarks/ann_benchmarks" / folder
        (config,) = yaml.safe_load((path / "config.yml").read_text("utf-8"))["float"]["any"]
        assert config["module"] == f"ann_benchmarks.algorithms.{folder}"
        assert config["docker_tag"] == f"ann-benchmarks-{folder}"
        found = importlib.import_module(f"benchmarks.ann_benchmarks.{folder}.module")
        algorithm = getattr(found, config["constructor"])
        for group in config["run_groups"].values():
            for build in group["args"][0]:
                algorithm("angular", build).set_query_arguments(*[group["query_args"][0][0]])


# ---- VectorDBBench ----


class FilterOp(enum.StrEnum):
    """As in vectordb_bench.backend.filter."""

    NumGE = "NumGE"
    StrEqual = "Label"
    NonFilter = "NonFilter"


class MetricType(enum.StrEnum):
    """As in vectordb_bench.backend.clients.api."""

    L2 = "L2"
    COSINE = "COSINE"
    BM25 = "BM25"


class DB(enum.Enum):
    """As in vectordb_bench.backend.clients."""

    Other = "other"

    @property
    def init_cls(self) -> str:
        return "class of another"

    @property
    def config_cls(self) -> str:
        return "config of another"

    def case_config_cls(self, index_type: object = None) -> str:
        return f"case config of another, {index_type}"


class DBConfig(pydantic.BaseModel):
    """As in vectordb_bench.backend.clients.api."""

    db_label: str = ""


class VectorDB(ABC):
    """The methods that vectordb_bench.backend.clients.api.VectorDB wants of a client."""

    @abstractmethod
    def __init__(self) -> None: ...
    @abstractmethod
    def init(self) -> Any: ...
    @abstractmethod
    def insert_embeddings(self) -> Any: ...
    @abstractmethod
    def search_embedding(self) -> Any: ...
    @abstractmethod
    def optimize(self) -> Any: ...


@pytest.fixture(scope="module")
def databases(stand_ins: pytest.MonkeyPatch) -> Any:
    """Their enumeration of databases, with soardb registered."""
    if find_spec("vectordb_bench") is None:
        stand_in(stand_ins, "vectordb_bench")
        stand_in(stand_ins, "vectordb_bench.backend")
        stand_in(stand_ins, "vectordb_bench.backend.filter", FilterOp=FilterOp)
        stand_in(stand_ins, "vectordb_bench.backend.clients", DB=DB)
        api = {"DBCaseConfig": ABC, "DBConfig": DBConfig, "MetricType": MetricType}
        stand_in(stand_ins, "vectordb_bench.backend.clients.api", VectorDB=VectorDB, **api)
    launcher.register()
    return importlib.import_module("vectordb_bench.backend.clients").DB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for the clients of VectorDBBench."""
    with Served(tmp_path_factory.mktemp("vectordbbench") / "db") as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """The data as Parquet files."""
    return files.write(data, tmp_path_factory.mktemp("parquet") / "small", queries=QUERIES)


def column(path: Path, name: str) -> list[Any]:
    found: list[Any] = pq.read_table(path).column(name).to_pylist()
    return found


def new_client(databases: Any, server: Served, **options: Any) -> Any:
    """A client, as the task runner makes it from two configurations."""
    config = databases.SoarDB.config_cls(uri=server.target)
    case = databases.SoarDB.case_config_cls()(nlist=50, nprobe=20, rerank=100)
    return databases.SoarDB.init_cls(
        dim=D, db_config=config.to_dict(), db_case_config=case, with_scalar_labels=True, **options
    )


def unpickled(value: Any) -> Any:
    """The value as another process receives it."""
    return ForkingPickler.loads(bytes(ForkingPickler.dumps(value)))


def search_all(client: Any, filters: Any, folder: Path) -> list[list[int]]:
    """The answers to all queries in a connection of their own."""
    with client.init():
        client.prepare_filter(filters)
        return [client.search_embedding(q, K) for q in column(folder / "test.parquet", "emb")]


@pytest.fixture(scope="module")
def loaded(databases: Any, server: Served, folder: Path) -> Any:
    """A client whose collection was loaded by two threads and optimised in another process."""
    client = new_client(databases, server, drop_old=True)
    rows = column(folder / "train.parquet", "emb")
    labels = column(folder / "scalar_labels.parquet", "labels")

    def insert(start: int) -> int:
        part = range(start, min(start + 100, N))
        count, error = client.insert_embeddings(
            embeddings=[rows[i] for i in part],
            metadata=list(part),
            labels_data=[labels[i] for i in part],
        )
        assert error is None
        return int(count)

    with client.init(), ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(insert, range(0, N, 100))) == N
    other = unpickled(client)
    with other.init():
        other.optimize(data_size=N)
        assert other.poll_insert_readiness(N)["fully_indexed"]
        assert not other.poll_insert_readiness(N + 1)["fully_searchable"]
    return client


class TestVectorDBBench:
    def test_registering_changes_nothing_for_others(self, databases: Any) -> None:
        """Their files are left alone, and so is the way from every other database to its client."""
        launcher.register()
        names = list(databases.__members__)
        assert names.count("SoarDB") == 1
        assert databases("SoarDB") is databases.SoarDB
        assert unpickled(databases.SoarDB) is databases.SoarDB
        if databases is DB:
            other = DB.Other
            assert (other.init_cls, other.config_cls) == ("class of another", "config of another")
            assert other.case_config_cls("HNSW") == "case config of another, HNSW"

    def test_it_finds_the_neighbours(self, loaded: Any, folder: Path) -> None:
        """A copy in another process searches what was loaded in this one."""
        found = search_all(unpickled(loaded), SimpleNamespace(type="NonFilter"), folder)
        true = [ids[:K] for ids in column(folder / "neighbors.parquet", "neighbors_id")]
        assert recall(found, true) > 0.97  # measured 1.0

    def test_a_number_filter_is_obeyed(self, loaded: Any, folder: Path, data: Dataset) -> None:
        """id >= value, exact where few match."""
        first = N - 30
        at_least = SimpleNamespace(type="NumGE", int_field="id", int_value=first)
        found = search_all(loaded, at_least, folder)
        true, _ = ground_truth(data.train[first:], data.test, "cosine", k=K)
        assert recall(found, true + first) == 1.0

    @pytest.mark.parametrize("percentage", files.PERCENTAGES)
    def test_a_label_filter_is_obeyed(self, loaded: Any, folder: Path, percentage: float) -> None:
        """With the answers of the file that the harness opens for this label."""
        label = files.label_of(percentage)
        found = search_all(loaded, SimpleNamespace(type="Label", label_value=label), folder)
        nearest = column(folder / f"neighbors_labels_{label}.parquet", "neighbors_id")
        assert recall(found, [ids[:K] for ids in nearest]) > 0.97  # measured 1.0

    def test_the_next_case_without_a_filter_has_none(self, loaded: Any, folder: Path) -> None:
        """One object serves all cases on the same data."""
        plain = SimpleNamespace(type="NonFilter")
        before = search_all(loaded, plain, folder)
        search_all(loaded, SimpleNamespace(type="Label", label_value="label_1p"), folder)
        assert search_all(loaded, plain, folder) == before

    def test_it_can_be_copied_while_it_is_connected(self, loaded: Any) -> None:
        """A connection does not go from one process to another."""
        with loaded.init():
            assert unpickled(loaded)._collection is None
            assert loaded._collection is not None
        assert loaded._collection is None

    def test_old_data_stay_unless_they_are_to_go(self, databases: Any, server: Served) -> None:
        """A search-only run finds what an earlier run has loaded."""
        client = new_client(databases, server, collection_name="kept")
        vector = [1.0] * D
        with client.init():
            assert client.insert_embeddings([vector], [7]) == (1, None)
        again = new_client(databases, server, collection_name="kept")
        with again.init():
            assert again.search_embedding(vector, 5) == [7]
        emptied = new_client(databases, server, collection_name="kept", drop_old=True)
        with emptied.init():
            assert emptied.search_embedding(vector, 5) == []

    def test_a_refused_insert_is_reported(self, databases: Any, server: Served) -> None:
        """The harness counts and tries again; it wants an error as a value."""
        client = new_client(databases, server, collection_name="refused")
        with client.init():
            count, error = client.insert_embeddings([[1.0, 2.0]], [1])
        assert count == 0
        assert isinstance(error, InvalidArgument)

    def test_a_metric_of_texts_is_refused(self, databases: Any) -> None:
        """It would measure something else without a word."""
        case = databases.SoarDB.case_config_cls()
        assert case(metric_type="L2", soar_lambda=0.5).index_param() == {
            "metric": "l2",
            "index": {"soar_lambda": 0.5},
        }
        with pytest.raises(ValueError, match="BM25"):
            case(metric_type="BM25").index_param()

    def test_the_key_is_told_to_the_server_alone(self, databases: Any) -> None:
        """Results are published with their configuration."""
        config = databases.SoarDB.config_cls(api_key="soar_secret")
        assert config.to_dict()["api_key"] == "soar_secret"
        assert "soar_secret" not in config.model_dump_json()


class TestDatasetFiles:
    def test_they_have_the_columns_that_are_read(self, folder: Path) -> None:
        """By the names and types that VectorDBBench looks for."""
        for name, n in (("train", N), ("test", QUERIES)):
            table = pq.read_table(folder / f"{name}.parquet")
            assert table.column("id").to_pylist() == list(range(n))
            assert str(table.schema.field("emb").type).startswith("list<")
            assert str(table.schema.field("emb").type.value_type) == "float"
        neighbours = pq.read_table(folder / "neighbors.parquet").schema.field("neighbors_id")
        assert str(neighbours.type.value_type) == "int64"

    def test_vectors_are_those_of_the_set(self, folder: Path, data: Dataset) -> None:
        """To the last bit: the answers were computed from these."""
        assert np.array_equal(column(folder / "train.parquet", "emb"), data.train)
        assert np.array_equal(column(folder / "test.parquet", "emb"), data.test)

    def test_a_cut_has_its_own_neighbours(self, tmp_path: Path, data: Dataset) -> None:
        """Those of the whole set lie outside a cut of it."""
        cut = files.write(data, tmp_path / "cut", n=500, queries=20)
        true, _ = ground_truth(data.train[:500], data.test[:20], "cosine")
        assert column(cut / "neighbors.parquet", "neighbors_id") == true.tolist()
        assert len(column(cut / "test.parquet", "id")) == 20
        options = files.options(data, cut, 500)
        assert options[options.index("--custom-dataset-size") + 1] == "500"
        assert options[options.index("--custom-dataset-metric-type") + 1] == "COSINE"

    def test_labels_have_their_shares_and_their_neighbours(
        self, folder: Path, data: Dataset
    ) -> None:
        """One per cent has few matches, so the file may name fewer than a hundred."""
        labels = np.array(column(folder / "scalar_labels.parquet", "labels"))
        for percentage in files.PERCENTAGES:
            rows = np.flatnonzero(labels == files.label_of(percentage))
            assert len(rows) == round(percentage * N)
            name = f"neighbors_labels_{files.label_of(percentage)}.parquet"
            found = np.array(column(folder / name, "neighbors_id"))
            k = min(100, len(rows))
            true, _ = ground_truth(data.train[rows], data.test, "cosine", k=k)
            assert np.array_equal(found, rows[true])
        assert (labels == "other").sum() == N - sum(round(p * N) for p in files.PERCENTAGES)

    def test_l2_sets_are_named_so(self, tmp_path: Path, data: Dataset) -> None:
        """Under the wrong metric the harness would have every database return other points."""
        options = files.options(replace(data, metric="l2"), tmp_path, None)
        assert options[options.index("--custom-dataset-metric-type") + 1] == "L2"


def test_the_names_it_takes_from_soardb_are_public() -> None:
    """The modules are copied into other projects, where only the public names are promised."""
    assert {"connect", "F", "HitColumns", "SoarError"} <= set(soardb.__all__)
