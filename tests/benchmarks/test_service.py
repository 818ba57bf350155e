"""The benchmark of servers: the cheapest setting is found, counts are right, nothing stays behind.

    bench_service.py, service_*.py -> [test_service.py]

Only what runs without the peers: a scan by NumPy behind a socket, and, where grpcio is installed,
the raw echo. No peer is installed here, and no network is used.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_service, service_environments, service_report
from benchmarks.service_settings import ENTRIES, Entry, Search
from soardb.errors import InvalidArgument

HAS_GRPC = importlib.util.find_spec("grpc") is not None
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads processes through Linux")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run of --tiny through the command line: its folder and its report."""
    folder = tmp_path_factory.mktemp("service")
    command = ["--tiny", "--out", str(folder), "--folder", str(folder)]
    assert bench_service.main(command) == 0
    report = json.loads((folder / f"service-{bench_service.TINY}.json").read_text())
    return folder, report


@pytest.fixture
def report(finished: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return finished[1]


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [peer for peer in report["peers"] if peer["name"] == name]
    assert isinstance(found, dict)
    return found


class TestEntries:
    def test_every_server_is_pinned_and_has_its_source(self) -> None:
        """Another version is another server; a setting without a source is a guess."""
        for entry in ENTRIES.values():
            assert entry.source, entry.label
            assert entry.durability, entry.label
            if entry.requirements:
                assert any("==" in requirement for requirement in entry.requirements), entry.label

    def test_every_knob_rises(self) -> None:
        """The bisection takes the first value that reaches the recall for the cheapest."""
        for entry in ENTRIES.values():
            for variant in entry.variants:
                for search in variant.searches:
                    assert list(search.values) == sorted(set(search.values)), variant.label

    def test_a_missing_module_names_the_extra(self) -> None:
        absent = dataclasses.replace(ENTRIES["echo"], modules=("no_such_module",))
        assert "no_such_module" in (absent.missing() or "")
        assert "soardb[bench-service]" in (absent.missing() or "")

    def test_who_listens_everywhere_needs_a_network_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A benchmark must not open ports of the machine to others."""
        assert ENTRIES["milvus"].listens_everywhere
        monkeypatch.setattr(bench_service, "isolation", tuple)
        pythons, skipped = bench_service._pythons([ENTRIES["milvus"]])
        assert not pythons
        assert "every address" in skipped["Milvus standalone"]


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dataset": "sift-128-euclidean"}, "angular"),
            ({"peers": ("nobody",)}, "--peers"),
            ({"peers": ()}, "--peers"),
            ({"rounds": 0}, "rounds"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, change: dict[str, Any], words: str) -> None:
        options = bench_service.Options(dataset=bench_service.TINY, n=100)
        with pytest.raises(InvalidArgument, match=words):
            bench_service.run(dataclasses.replace(options, **change))

    def test_names_and_numbers_are_read_from_the_command_line(self) -> None:
        options, _ = bench_service.parse(["--peers", "milvus, redis", "--clients", "1,16"])
        assert options.peers == ("milvus", "redis")
        assert options.clients == (1, 16)


class TestEnvironments:
    def test_no_requirements_means_this_environment(self) -> None:
        assert service_environments.python_for("exact", ()) == Path(sys.executable)

    @linux_only
    def test_the_network_of_a_server_has_nothing_but_loopback(self) -> None:
        if not service_environments.isolation():
            pytest.skip("name spaces are not allowed here")
        listed = subprocess.run(
            [*service_environments.isolation(), "cat", "/proc/net/dev"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert [line.split(":")[0].strip() for line in listed.stdout.splitlines()[2:]] == ["lo"]


@linux_only
class TestRun:
    def test_the_report_says_how_it_was_made(self, report: dict[str, Any]) -> None:
        """A number without its commit, machine, data and parameters cannot be checked."""
        for name in ("commit", "date", "machine", "dataset", "parameters", "versions", "isolation"):
            assert report[name], name
        assert report["is_complete"]
        assert report["seed"] == 0
        assert report["failed"] == {}

    def test_the_cheapest_setting_that_reaches_the_recall_is_taken(
        self, report: dict[str, Any]
    ) -> None:
        """More would be slower, less would be found less: equal recall makes rates comparable."""
        exact = row(report, "exact")
        assert exact["recall"] >= 0.95  # measured 1.0
        assert exact["searches"] == [{"percent": 100}]

    def test_recall_holds_under_load(self, report: dict[str, Any]) -> None:
        """Judged on the very answers that were timed."""
        (done,) = row(report, "exact")["rounds"]
        for point in (*done["singles"].values(), *done["batches"].values()):
            assert point["recall"] == 1.0

    def test_rates_and_latencies_agree(self, report: dict[str, Any]) -> None:
        """In a closed loop the clients are the rate times the mean latency, near the median."""
        for peer in report["peers"]:
            for clients, point in peer["singles"].items():
                assert 0 < point["p50_ms"] <= point["p99_ms"]
                under_way = point["calls_per_s"] * point["p50_ms"] / 1e3
                assert under_way < 1.5 * int(clients), peer["label"]  # measured 0.7 to 1.0
            for batch, point in peer["batches"].items():
                calls = point["queries_per_s"] / int(batch)
                assert calls == pytest.approx(point["calls_per_s"])

    @pytest.mark.skipif(not HAS_GRPC, reason="needs grpcio")
    def test_the_echo_is_a_ceiling_without_recall(self, report: dict[str, Any]) -> None:
        echo = row(report, "echo")
        assert echo["is_ceiling"]
        assert echo["recall"] is None

    def test_nothing_stays_behind(self, finished: tuple[Path, dict[str, Any]]) -> None:
        """Neither a folder of a server nor a process that was started with one."""
        folder, _ = finished
        assert [path.name for path in folder.iterdir() if path.is_dir()] == []
        commands = [
            path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if os.access(path, os.R_OK)
        ]
        assert not [command for command in commands if str(folder) in command]

    def test_the_tables_name_every_row_and_what_is_missing(self, report: dict[str, Any]) -> None:
        gone = {**report, "skipped": {"Chroma": "no pip"}, "failed": {"Redis Stack": "died"}}
        table = service_report.table(gone)
        for peer in report["peers"]:
            assert f"| {peer['label']} |" in table
        assert "Chroma** was skipped: no pip" in table
        assert "Redis Stack** failed: died" in table

    def test_a_call_of_many_that_does_not_exist_is_marked(self, report: dict[str, Any]) -> None:
        exact = {**row(report, "exact"), "batches": {}, "batch": ""}
        assert "| absent |" in service_report.table({**report, "peers": [exact]})

    def test_the_figure_is_drawn(self, finished: tuple[Path, dict[str, Any]]) -> None:
        folder, _ = finished
        assert (folder / f"service-{bench_service.TINY}.png").stat().st_size > 0


def tiny_options(folder: Path, *peers: str) -> bench_service.Options:
    options, _ = bench_service.parse(["--tiny", "--folder", str(folder), "--peers", "exact"])
    return dataclasses.replace(
        options, peers=peers, n=200, queries=5, clients=(1,), batches=(), seconds=0.1
    )


@linux_only
class TestFailures:
    def test_a_failing_server_does_not_stop_the_others_and_is_saved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An interrupted run keeps what it has: the report is saved after each server."""
        broken = dataclasses.replace(ENTRIES["exact"], name="broken", label="broken", peer="nobody")
        monkeypatch.setitem(ENTRIES, "broken", broken)
        saved: list[dict[str, Any]] = []
        options = tiny_options(tmp_path, "broken", "exact")
        bench_service.run(options, lambda report: saved.append(json.loads(json.dumps(report))))
        assert "KeyError: 'nobody'" in saved[0]["failed"]["broken"]
        assert not saved[0]["is_complete"]
        assert [peer["name"] for peer in saved[1]["peers"]] == ["exact"]
        assert not saved[1]["is_complete"]
        assert saved[-1]["is_complete"]

    def test_a_recall_that_no_setting_reaches_is_a_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rate at less recall must not stand in the table."""
        (variant,) = ENTRIES["exact"].variants
        half = dataclasses.replace(variant, searches=(Search("percent", (10, 50)),))
        lame: Entry = dataclasses.replace(ENTRIES["exact"], variants=(half,))
        monkeypatch.setitem(ENTRIES, "exact", lame)
        found = bench_service.run(tiny_options(tmp_path, "exact"))
        assert "does not reach recall 0.95" in found["failed"][lame.label]
        assert found["peers"] == []

    def test_a_failing_index_does_not_lose_the_server(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (variant,) = ENTRIES["exact"].variants
        wrong = dataclasses.replace(
            variant,
            label="wrong",
            searches=(Search("percent", ("all",)),),  # type: ignore[arg-type]
        )
        two = dataclasses.replace(ENTRIES["exact"], variants=(wrong, variant))
        monkeypatch.setitem(ENTRIES, "exact", two)
        monkeypatch.setattr(bench_service, "TUNE_S", 0.2)
        (found,) = bench_service.run(tiny_options(tmp_path, "exact"))["peers"]
        assert found["variant"] == variant.label
        assert [row["variant"] for row in found["tried"]] == ["wrong", variant.label]
        assert "failed" in found["tried"][0]


def test_pgvector_rows_are_in_its_binary_format() -> None:
    """Written without PostgreSQL here: header, two fields a row, trailer."""
    from benchmarks.service_postgres import pg_array, pg_rows, pg_vector

    vectors = np.array([[1, 2], [3, 4]], np.float32)
    raw = pg_rows(vectors)
    assert raw.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    assert raw.endswith(b"\xff\xff")
    first = raw[19 : 19 + 2 + 12 + 4 + 12]
    assert first[:2] == b"\0\2"
    assert first[2:14] == (8).to_bytes(4, "big") + (0).to_bytes(8, "big")
    assert first[14:18] == (12).to_bytes(4, "big")
    assert first[18:] == pg_vector(vectors[0]) == b"\0\2\0\0\x3f\x80\0\0\x40\0\0\0"
    array = pg_array([pg_vector(row) for row in vectors], oid=77)
    assert np.frombuffer(array[:20], ">i4").tolist() == [1, 0, 77, 2, 1]
    assert len(array) == 20 + 2 * (4 + 12)
