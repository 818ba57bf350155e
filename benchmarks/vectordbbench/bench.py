"""VectorDBBench from nothing to its result: environment, data, server, its own command line, table.

    harnesses.py, dataset.py, `soardb serve`, run.py -> [bench.py] -> the figures, a line each

    python -m benchmarks.vectordbbench.bench --n 50000 --concurrency 1,2,4 --seconds 10

VectorDBBench has many dependencies, so it gets an environment of its own in the cache folder, once;
soardb's client is installed there from this checkout. The server runs in this environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.harnesses import ROOT, environment
from benchmarks.vectordbbench import dataset as files

PACKAGES = ("vectordb-bench==2.0.0",)
START_S = 60.0


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a new database in that folder."""
    ready = folder / "ready.json"
    command = [sys.executable, "-P", "-m", "soardb_service", str(folder / "db"), "--port", "0"]
    command += ["--rest-port", "-1", "--log-level", "warning", "--ready-file", str(ready)]
    server = subprocess.Popen(command)
    try:
        end = time.monotonic() + START_S
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"expected a server within {START_S:.0f} s; see what it said")
            time.sleep(0.05)
        yield f"grpc://127.0.0.1:{json.loads(ready.read_text('utf-8'))['port']}"
    finally:
        server.terminate()
        server.wait()


def result_in(folder: Path) -> dict[str, Any]:
    """What VectorDBBench measured, from the one result file under a folder."""
    (path,) = folder.rglob("result_*.json")
    (case,) = json.loads(path.read_text("utf-8"))["results"]
    if case["label"] != ":)":
        raise RuntimeError(f"expected a case that ran to its end, got label {case['label']}")
    found: dict[str, Any] = case["metrics"]
    return found


def summary(found: dict[str, Any]) -> str:
    """One line a figure."""
    lines = [
        f"loading     {found['load_duration']:.1f} s:"
        f" insert {found['insert_duration']:.1f}, optimise {found['optimize_duration']:.1f}",
        f"recall      {found['recall']:.4f}",
        f"serial      p95 {1000 * found['serial_latency_p95']:.1f} ms,"
        f" p99 {1000 * found['serial_latency_p99']:.1f} ms",
    ]
    for clients, qps, p99 in zip(
        found["conc_num_list"], found["conc_qps_list"], found["conc_latency_p99_list"], strict=True
    ):
        lines.append(f"clients {clients:<3d} {qps:.0f} QPS, p99 {1000 * p99:.1f} ms")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it; options that are not known here go to VectorDBBench."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectordbbench.bench",
        description="VectorDBBench's PerformanceCustomDataset on a soardb server.",
    )
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--n", type=int, default=50_000, help="rows, the first ones")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--concurrency", default="1,2,4")
    parser.add_argument("--seconds", type=int, default=10, help="of each concurrency")
    given, more = parser.parse_known_args(arguments)
    python = environment("vectordbbench", "client", PACKAGES)
    dataset = datasets.load(given.dataset)
    with tempfile.TemporaryDirectory(prefix="soardb-vectordbbench-") as name:
        folder = Path(name)
        parquet = files.write(dataset, folder / "data", n=given.n, queries=given.queries)
        with served(folder) as uri:
            launcher = ROOT / "benchmarks/vectordbbench/run.py"
            command = [str(python), str(launcher), "soardb", "--uri", uri]
            command += files.options(dataset, parquet, given.n)
            command += ["--num-concurrency", given.concurrency, "--k", str(given.k)]
            command += ["--concurrency-duration", str(given.seconds), *more]
            settings = {"RESULTS_LOCAL_DIR": str(folder / "results")}
            subprocess.run(command, check=True, env=os.environ | settings, cwd=folder)
        print(summary(result_in(folder / "results")))


if __name__ == "__main__":
    main()
