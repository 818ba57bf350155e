"""Where each server of bench_service.py lives: its packages, and a network of its own.

    pip, unshare(1) -> [service_environments.py] -> bench_service.py

The servers need packages that conflict, so each has a virtual environment of its own, made once in
the cache folder beside the data sets, with pinned versions. All that listens runs in a network
namespace which has nothing but loopback, because one of them, Milvus, listens on every address
whatever it is told; a process namespace around it ends every process that a server has made, also
when the benchmark is killed. Where namespaces are not allowed, `isolation` says so and a server
that would listen on every address is not started.

Nothing here knows what a server does.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.environment import cache_folder
from soardb.errors import Unavailable

PIP_LIMIT_S = 1_200.0
# --kill-child: whoever ends unshare ends the first process of the namespace, and with it all.
_UNSHARE = ("--net", "--pid", "--fork", "--mount-proc", "--kill-child")


@cache
def isolation() -> tuple[str, ...]:
    """The command that gives a process a loopback and a process table of its own.

    As root plainly, else through a user namespace; empty where the system allows neither.
    """
    if shutil.which("unshare") is None:
        return ()
    for who in ((), ("--user", "--map-root-user")):
        command = ("unshare", *who, *_UNSHARE, "--")
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    return ()


def python_for(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that has these packages; made at the first call.

    requirements  pinned, in pip's words; none means this very environment. Another list makes
                  another environment, so an old one is never changed under an old result.

    Takes a minute or two and needs PyPI once. Raises Unavailable if pip fails.
    """
    if not requirements:
        return Path(sys.executable)
    words = "\n".join((sys.version, *requirements))
    key = hashlib.sha256(words.encode()).hexdigest()[:12]
    folder = cache_folder() / "environments" / f"{name}-{key}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *requirements]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name}: pip was not done after {PIP_LIMIT_S:,.0f} s") from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise Unavailable(f"{name}: pip failed with code {done.returncode}: {last}")
    (folder / "complete").touch()
    return python
