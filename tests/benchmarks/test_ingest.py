"""The benchmark of writing: traces read rightly, honest words, one small run of each database.

Databases that are not installed are skipped here, and in a report they are named with the reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_ingest, ingest_peers, ingest_report, ingest_run, ingest_syncs
from soardb.errors import InvalidArgument

FOLDER = "/somewhere/database"


def traced(*lines: str) -> dict[str, Any]:
    return ingest_syncs.parse(lines, FOLDER)


def mark(which: str, kind: str) -> str:
    return f"1  fsync(9</somewhere/{which}-{kind}>) = 0"


class TestTraces:
    def test_counts_what_returned_within_a_write(self) -> None:
        found = traced(
            f"1  fsync(5<{FOLDER}/before>) = 0",
            mark("begin", "single"),
            f"1  fdatasync(5<{FOLDER}/rows.sqlite-wal>) = 0",
            mark("end", "single"),
            mark("begin", "single"),
            mark("end", "single"),
        )
        assert found["single"]["writes"] == 2
        assert found["single"]["writes_with_a_sync"] == 1
        assert found["single"]["files"] == {"fdatasync: rows.sqlite-wal": 1}
        assert found["batch"]["writes"] == 0

    def test_a_flush_that_is_still_under_way_does_not_count(self) -> None:
        """A write that is acknowledged before its flush has returned is not durable."""
        found = traced(
            mark("begin", "batch"),
            f"7  fsync(5<{FOLDER}/log> <unfinished ...>",
            mark("end", "batch"),
            "7  <... fsync resumed>) = 0",
            mark("begin", "batch"),
            f"7  fsync(5<{FOLDER}/log> <unfinished ...>",
            "7  <... fsync resumed>) = 0",
            mark("end", "batch"),
        )
        assert found["batch"]["writes_with_a_sync"] == 1

    def test_a_hint_is_no_flush(self) -> None:
        """Neither call waits for the disk."""
        found = traced(
            mark("begin", "batch"),
            "1  msync(0x7f0d96000000, 4096, MS_ASYNC) = 0",
            f"1  sync_file_range(5<{FOLDER}/N.sst>, 0, 4096, SYNC_FILE_RANGE_WRITE) = 0",
            mark("end", "batch"),
            mark("begin", "batch"),
            "1  msync(0x7f0d96000000, 4096, MS_SYNC) = 0",
            mark("end", "batch"),
        )
        assert found["batch"]["writes_with_a_sync"] == 1
        assert found["batch"]["files"] == {"msync: a mapped file": 1}

    def test_names_what_was_made_and_not_flushed(self) -> None:
        """A flushed log that is deleted in favour of a file nobody flushed is no durability."""
        found = traced(
            mark("begin", "single"),
            f'1  openat(AT_FDCWD</x>, "{FOLDER}/data_12.parquet", O_WRONLY|O_CREAT, 0666) = 6',
            f'1  openat(AT_FDCWD</x>, "{FOLDER}/manifest.tmp", O_WRONLY|O_CREAT, 0666) = 7',
            f"1  fsync(7<{FOLDER}/manifest.tmp>) = 0",
            mark("end", "single"),
        )
        assert found["single"]["made_and_not_flushed"] == {"data_N.parquet": 1}

    def test_names_files_that_flush_each_write(self) -> None:
        found = traced(f'1  openat(AT_FDCWD</x>, "{FOLDER}/log.3", O_WRONLY|O_DSYNC) = 6')
        assert found["opened_for_synchronous_writing"] == {"log.N": 1}


class TestEntries:
    def test_every_library_has_its_strongest_durability(self) -> None:
        """Who is compared at less than it can do is compared unfairly."""
        libraries = {entry.library for entry in ingest_peers.ENTRIES.values()}
        strongest = [e.library for e in ingest_peers.ENTRIES.values() if e.is_strongest]
        assert sorted(strongest) == sorted(libraries)
        assert len(libraries) == 6

    def test_every_word_has_its_source(self) -> None:
        for entry in ingest_peers.ENTRIES.values():
            assert entry.durability, entry.label
            assert entry.source, entry.label
            assert entry.index, entry.label

    def test_a_missing_package_names_the_extra(self) -> None:
        entry = ingest_peers.ENTRIES["LanceDB"]
        absent = dataclasses.replace(entry, packages=("no-such-package",))
        assert "no-such-package" in (absent.missing() or "")
        assert "soardb[bench-ingest]" in (absent.missing() or "")

    def test_rows_follow_from_the_seed(self) -> None:
        """Every database and round writes the same payloads."""
        vectors = np.zeros((30, 4), np.float32)
        one, other = (ingest_run.rows_of(vectors, 10, 20, 0) for _ in range(2))
        assert one.payloads() == other.payloads()
        assert one.ids.tolist() == list(range(10, 20))


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dataset": "sift-128-euclidean"}, "angular"),
            ({"cores": (10_000,)}, "cores"),
            ({"rounds": 0}, "rounds"),
            ({"only": "nothing at all"}, "--only"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, change: dict[str, Any], words: str) -> None:
        options = bench_ingest.Options(
            dataset=bench_ingest.TINY, n=100, cores=(min(os.sched_getaffinity(0)),)
        )
        with pytest.raises(InvalidArgument, match=words):
            bench_ingest.run(dataclasses.replace(options, **change))


def tiny(folder: Path, only: str) -> dict[str, Any]:
    """The report of one run over 2,000 random points, through the command line."""
    command = ["--tiny", "--rounds", "1", "--only", only, "--out", str(folder)]
    assert bench_ingest.main([*command, "--folder", str(folder)]) == 0
    stem = folder / f"ingest-{bench_ingest.TINY}"
    assert stem.with_suffix(".png").stat().st_size > 0
    assert stem.with_suffix(".md").read_text().startswith(bench_ingest.TINY)
    report: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text())
    return report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny(tmp_path_factory.mktemp("ingest"), "^soardb")


@pytest.mark.skipif(sys.platform != "linux", reason="pins cores through Linux")
class TestRun:
    def test_the_report_says_how_it_was_made(self, report: dict[str, Any]) -> None:
        """A number without its commit, machine, data and parameters cannot be checked."""
        for name in ("commit", "date", "machine", "threads", "disk", "dataset", "parameters"):
            assert report[name], name
        assert report["seed"] == 0
        assert report["skipped"] == report["failed"] == {}
        assert [peer["label"] for peer in report["peers"]] == [
            label for label in ingest_peers.ENTRIES if label.startswith("soardb")
        ]

    def test_every_point_is_there_and_found(self, report: dict[str, Any]) -> None:
        for peer in report["peers"]:
            assert peer["is_count_right"]
            assert peer["at_once"]["counts"] == peer["built"]["counts"] == [2_050]
            assert peer["at_once"]["recall"] > 0.9  # measured 1.0
            assert peer["built"]["recall"] > 0.9  # measured 1.0
            assert peer["disk_bytes"] > 2_050 * 32 * 4
            assert peer["peak_rss_bytes"] > 0
            assert 0 < peer["single_p50_ms"] <= peer["single_p99_ms"]

    def test_the_acknowledgements_keep_their_words(self, report: dict[str, Any]) -> None:
        """Seen from outside: fsync flushes every single write, the others do not."""
        if shutil.which("strace") is None:
            assert all(not peer["syncs"]["measured"] for peer in report["peers"])
            pytest.skip("needs strace")
        if not all(peer["syncs"]["measured"] for peer in report["peers"]):
            pytest.skip("strace may not trace here")
        shares = {
            peer["label"]: peer["syncs"]["single"]["writes_with_a_sync"] for peer in report["peers"]
        }
        assert shares["soardb, fsync"] == bench_ingest.PROBE_SINGLES
        assert shares["soardb, logged"] < bench_ingest.PROBE_SINGLES / 2  # measured 0
        assert shares["soardb, memory"] < bench_ingest.PROBE_SINGLES / 2  # measured 0

    def test_the_table_names_every_row_and_what_is_missing(self, report: dict[str, Any]) -> None:
        gone = {**report, "skipped": {"zvec, flush": "not installed"}, "failed": {"Chroma": "died"}}
        table = ingest_report.table(gone)
        for peer in report["peers"]:
            assert f"| {peer['label']} |" in table
        assert "zvec, flush** was skipped: not installed" in table
        assert "Chroma** failed: died" in table

    def test_a_failing_database_does_not_stop_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = ingest_peers.ENTRIES
        broken = dataclasses.replace(entries["soardb, fsync"], label="broken")
        monkeypatch.setattr(bench_ingest, "ENTRIES", {"broken": broken, **entries})
        options = bench_ingest.Options(
            dataset=bench_ingest.TINY,
            only="broken|soardb, fsync",
            n=200,
            batch=100,
            singles=5,
            rounds=1,
            queries=5,
            cores=(min(os.sched_getaffinity(0)),),
            folder=tmp_path,
        )
        found = bench_ingest.run(options)
        assert "KeyError: 'broken'" in found["failed"]["broken"]
        assert [peer["label"] for peer in found["peers"]] == ["soardb, fsync"]


@pytest.mark.skipif(sys.platform != "linux", reason="pins cores through Linux")
@pytest.mark.parametrize(
    "label", [label for label in ingest_peers.ENTRIES if not label.startswith("soardb")]
)
def test_every_peer_keeps_and_finds_its_points(label: str, tmp_path: Path) -> None:
    """A peer that is used wrongly would be compared unfairly: all points, near full recall."""
    if why := ingest_peers.ENTRIES[label].missing():
        pytest.skip(why)
    (peer,) = tiny(tmp_path, f"^{label}$")["peers"]
    assert peer["is_count_right"]
    assert peer["at_once"]["recall"] > 0.95  # measured 0.998 to 1.0
