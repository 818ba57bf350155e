"""Environments for benchmark projects of others, whose dependencies are not to mix with ours.

    [harnesses.py] -> ann_benchmarks/bench.py, vectordbbench/bench.py

Each is made once, in the cache folder, with this checkout installed in it as a user would.
"""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import cache_folder

ROOT = Path(__file__).resolve().parents[1]


def environment(name: str, extra: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages and soardb[extra].

    Takes minutes the first time. It does not follow later changes of the checkout: delete its
    folder, ~/.cache/soardb/datasets/environments/<name> unless $SOARDB_DATA says another place.
    """
    folder = cache_folder() / "environments" / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        venv.create(folder, with_pip=True, clear=True)
        # A folder of its own for the objects: those of the checkout belong to its environment.
        command = [str(python), "-m", "pip", "install", "-q", "-C", f"build-dir={folder / 'build'}"]
        subprocess.run([*command, *packages, f"{ROOT}[{extra}]"], check=True)
        stamp.touch()
    return python
