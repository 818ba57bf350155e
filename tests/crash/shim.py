"""The shim as a compiled library, and the environment that puts it under a process.

    shim.c -> [shim.py] -> powercut.py, test_disk.py

Compiled with the machine's compiler into a folder that the caller names; Linux with a C compiler
is needed, else Unavailable says what is missing, and tests skip with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from soardb.errors import Unavailable

__all__ = ["compile_shim", "environment"]

_SOURCE = Path(__file__).with_name("shim.c")


def compile_shim(folder: Path) -> Path:
    """The library, made in the folder. Errors: Unavailable."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or compiler is None:
        raise Unavailable("the shim needs Linux and a C compiler")
    library = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-pthread", "-o", str(library), str(_SOURCE)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise Unavailable(f"the shim does not compile: {ended.stderr}")
    return library


def environment(
    library: Path,
    root: Path,
    *,
    trace: Path | None = None,
    mark: Path | None = None,
    faults: Path | None = None,
) -> dict[str, str]:
    """The variables of a process whose files under root are watched."""
    given = {"SHIM_TRACE": trace, "SHIM_MARK": mark, "SHIM_FAULTS": faults}
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "SHIM_ROOT": str(root.resolve()),
        **{name: str(path) for name, path in given.items() if path is not None},
    }
