"""The comparison of gRPC servers runs, and tells what it should.

    benchmarks/bench_rpc.py -> [test_rpc.py]

Its figures are those of one short round on a busy machine, so none is looked at but for being one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import bench_rpc


@pytest.mark.skipif(shutil.which("taskset") is None, reason="pins its processes with taskset")
def test_each_server_is_measured_under_each_load(tmp_path: Path) -> None:
    """One row a kind and number of clients, with where it comes from."""
    found = bench_rpc.main(["--tiny", "--out", str(tmp_path / "rpc.json")])
    assert found == json.loads((tmp_path / "rpc.json").read_text("utf-8"))
    assert {"thread pool", "aio"} <= set(found["servers"])
    for rows in found["servers"].values():
        assert [row["clients"] for row in rows] == [1, 4]
        assert all(row["rps"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in rows)
    assert found["commit"]
    assert found["machine"]["cpu"]
