"""One setting of one index, asked query by query, with or without the clocks of stages.hpp.

    job.json -> [profile_run.py] -> one line of JSON, ids.npy

A process of its own, started by bench_profile.py: kernels are bound by whoever imports them first,
so an extension with clocks must be loaded before anything of soardb is. For that reason nothing of
soardb is imported at the top of this module.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NATIVE = "soardb.kernels._native"
WARM_UP = 200


def load_clocks(folder: Path) -> None:
    """Let this process take its kernels from the extension in a folder.

    Exits with a message where there is none, or one without clocks.
    """
    files = sorted(folder.glob("_native*.so"))
    if not files:
        sys.exit(f"expected an extension _native*.so in {folder}; `make profile` compiles it")
    spec = importlib.util.spec_from_file_location(NATIVE, files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NATIVE] = module
    spec.loader.exec_module(module)
    if not module.stage_times():
        sys.exit(f"expected {files[0]} compiled with SOARDB_PROFILE=ON, got one without clocks")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Ask every query in a call of its own, job["repeat"] times; the times of the fastest pass.

    Stages of one pass add up to it, and the fastest is the one that was disturbed least.

    Returns seconds, of a query by the clock around the loop; and, where the kernels have clocks,
    stages: name, what it covers, calls and seconds of each, per query. Writes ids (nq, k) int64.
    """
    if job["clocks"] is not None:
        load_clocks(Path(job["clocks"]))
    soardb = importlib.import_module("soardb")
    native = importlib.import_module(NATIVE)
    os.sched_setaffinity(0, {job["core"]})
    index = soardb.SoarIndex.load(job["index"])
    queries, k, search = np.load(job["queries"]), job["k"], job["search"]
    rows = [query[None] for query in queries]
    for row in rows[:WARM_UP]:
        index.search(row, k, **search)
    passes = []
    for _ in range(job["repeat"]):
        native.reset_stage_times()
        start = time.perf_counter()
        for row in rows:
            index.search(row, k, **search)
        seconds = (time.perf_counter() - start) / len(rows)
        passes.append((seconds, native.stage_times()))
    seconds, stages = min(passes, key=lambda one: one[0])
    np.save(job["ids"], index.search(queries, k, **search)[1])
    return {
        "seconds": seconds,
        "stages": [
            {
                "stage": name,
                "covers": covers,
                "calls": calls / len(rows),
                "seconds": 1e-9 * nanoseconds / len(rows),
            }
            for name, covers, calls, nanoseconds in stages
        ],
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
