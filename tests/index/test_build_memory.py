"""What a build holds in memory: the index, a batch, and a few bytes a vector; never a copy.

    SoarIndex.{train, add} in a process of its own -> [test_build_memory.py]

The peak is the system's own account of the process (VmHWM; getrusage would begin with the size of
the test program), which counts the pages of the mapped source too: they are allowed for once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

N, D = 300_000, 128
SOURCE = N * D * 4
BUFFER = 120 * 2**20
"""For a batch in its several forms (8 MiB each), the sample, and the allocator's holes."""
ORDER = 32 * N

PROGRAM = """
import json, sys
import numpy as np
from soardb import SoarIndex

def build(vectors, **options):
    options |= {"iterations": 2, "points_per_centroid": 50}
    index = SoarIndex(vectors.shape[1], sys.argv[2], **options)
    index.train(vectors)
    index.add(vectors)
    return index

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

source = np.load(sys.argv[1], mmap_mode="r")
build(np.asarray(source[:3000]), nlist=20)  # what is loaded and compiled once
before = peak()
index = build(source, nlist=100, soar_lambda=float(sys.argv[3]))
grown, held = peak() - before, sum(index.memory().values())
print(json.dumps({"grown": grown, "index": held, "n": len(index)}))
"""


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "vectors.npy"
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, D), np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (N, D))
    for first in range(0, N, 10_000):
        noise = rng.standard_normal((10_000, D), np.float32)
        out[first : first + 10_000] = centres[rng.integers(0, 200, 10_000)] + noise
    out.flush()
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("metric", "soar_lambda"), [("cosine", 0.0), ("l2", 1.5)])
def test_a_build_from_a_mapped_file_makes_no_copy(
    vectors: Path, metric: str, soar_lambda: float
) -> None:
    """One more copy of the vectors (147 MiB) breaks the bound."""
    command = [sys.executable, "-P", "-c", PROGRAM, str(vectors), metric, str(soar_lambda)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["n"] == N
    room = found["grown"] - found["index"] - SOURCE
    print(f"{metric}: {room / 2**20:.0f} MiB beyond index and source")
    assert room < BUFFER + ORDER
