"""Where and from what a figure comes: the commit and the machine, as JSON values.

    [provenance.py] -> bench_peers.py, bench_kmr.py, every other benchmark that writes a result

A result without these cannot be made again. Linux tells the processor's name and flags; elsewhere
the architecture has to do.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from soardb.kernels import dispatch

__all__ = ["commit", "machine"]

_CPUINFO = Path("/proc/cpuinfo")


def commit() -> str:
    """The commit of this checkout, with "-dirty" behind it if files differ."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown: git is not installed"
    return done.stdout.strip() if done.returncode == 0 else "unknown: no git checkout"


def machine() -> dict[str, Any]:
    """Processor, its vector instructions, memory, system, load, and the kernels soardb takes."""
    lines = _CPUINFO.read_text("utf-8").splitlines() if _CPUINFO.exists() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    info = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set((info.get("flags") or info.get("Features", "")).split())
    chosen = dispatch.describe()
    return {
        "cpu": f"{info.get('model name', platform.machine())}, {os.cpu_count()} cores",
        "features": sorted(flag for flag in flags if re.match("avx|amx|fma|f16c|asimd|sve", flag)),
        "soardb_kernels": f"{chosen.backend}, {chosen.simd}",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()}, {platform.machine()}",
        "load_average": os.getloadavg()[0],
    }
