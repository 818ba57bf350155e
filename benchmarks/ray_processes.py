"""A small Ray of this machine, and the processor time and message sizes of what runs on it.

    /proc, ray -> [ray_processes.py] -> bench_cluster.py, cluster_measure.py

Linux tells the nanoseconds that each thread has run. All processes that a driver's own Ray started
descend from the driver; those of another Ray are known by their numbers alone, and only where it
runs on this machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ray

__all__ = ["busy_s", "descendants", "loads", "pickled", "processor_s", "ray_for"]

_OBJECT_STORE_BYTES = 160 * 2**20
_PROC = Path("/proc")


@contextlib.contextmanager
def ray_for(target: str) -> Iterator[str]:
    """What to connect to: "ray://auto" in a Ray begun for the block, for "ray://local"."""
    if target != "ray://local":
        yield target
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(
            "local",  # whatever else is here
            num_cpus=1,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield "ray://auto"
    finally:
        ray.shutdown()


def processor_s(pids: Iterable[int]) -> float:
    """Seconds that the present threads of these processes have run; one that is gone adds 0."""
    total = 0
    for pid in pids:
        for file in (_PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(file.read_text("ascii").split()[0])
    return total / 1e9


def busy_s() -> float:
    """Seconds that all cores of this machine together have worked, for whomever."""
    fields = (_PROC / "stat").read_text("ascii").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, soft = (int(field) for field in fields[:7])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> set[int]:
    """The processes that this one started, theirs included."""
    parents: dict[int, int] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold anything.
                fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


_cloudpickle: Any = ray.cloudpickle  # untyped


def pickled(value: Any) -> bytes:
    """A value as Ray sends it, without Ray's own header of a call."""
    data: bytes = _cloudpickle.dumps(value, protocol=5)
    return data


def loads(data: bytes) -> Any:
    """The value of what pickled() made here."""
    return _cloudpickle.loads(data)
