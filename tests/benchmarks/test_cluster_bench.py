"""The benchmark of a cluster beside one collection, end to end on two shards of a real Ray.

benchmarks/bench_cluster.py, ray_processes.py -> [test_cluster_bench.py]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[test]'")
pytest.importorskip("h5py")

from benchmarks.ray_processes import busy_s, descendants, loads, pickled, processor_s


def test_a_tiny_run_has_the_same_answers_and_every_cost(tmp_path: Path) -> None:
    """In a process of its own, which begins a Ray and ends it."""
    command = [sys.executable, "-P", "-m", "benchmarks.bench_cluster", "--tiny"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "cluster-tiny.json").read_text("utf-8"))
    same = report["same_answers"]
    assert same["equal_ids"] == same["equal_scores"] == same["queries"] == 48
    assert report["recall"]["cluster"] > 0.95
    assert {(row["mode"], row["batch"]) for row in report["rows"]} == {
        (mode, batch) for mode in ("floor", "target", "exact") for batch in (1, 8, 40)
    }
    for row in report["rows"]:
        assert row["cluster"]["cpu_us_shards"] > 0
        assert row["cluster"]["query_us"] > 0
    one, many = report["parts"][0], report["parts"][-1]
    assert many["request_bytes"] - one["request_bytes"] == pytest.approx(2 * 39 * 32 * 4, abs=99)
    assert "overhead" in (tmp_path / "cluster-tiny.md").read_text("utf-8")


def test_processor_time_is_that_of_the_threads() -> None:
    """A loop of a tenth of a second is seen, of this process and of the machine."""
    before, machine, clock = processor_s([os.getpid()]), busy_s(), time.thread_time()
    while time.thread_time() - clock < 0.1:
        pass
    assert processor_s([os.getpid()]) - before == pytest.approx(0.1, abs=0.05)
    assert busy_s() - machine > 0.05
    assert processor_s([2**22 + 1]) == 0.0  # nobody's


def test_descendants_are_found_whatever_they_are_called() -> None:
    """A child and its child."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        for _ in range(200):
            found = descendants(os.getpid())
            if child.pid in found and descendants(child.pid):
                break
            time.sleep(0.05)
        assert child.pid in found
        assert descendants(child.pid) < descendants(os.getpid())
        child.communicate(b"\n")


def test_sizes_are_those_of_messages() -> None:
    """A matrix is its bytes and a little more, and comes back as it was."""
    matrix = np.ones((64, 96), np.float32)
    data = pickled(matrix)
    assert 0 < len(data) - matrix.nbytes < 500
    assert (loads(data) == matrix).all()
