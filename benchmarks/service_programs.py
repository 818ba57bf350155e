"""What the peers of bench_service.py are made of: their face, and a program that is running.

    [service_programs.py] -> service_peers.py, service_postgres.py, service_builtin.py

A peer is a Server, which starts a program in an empty folder and loads vectors, and a Session,
which is one client of it. A Program is a process with its log, stopped in order, and by force
after a while. Everything listens on loopback.

Runs inside the environment of a peer, where only NumPy is sure to be: no import of soardb here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Settings = Mapping[str, Any]
Answers = list[list[int]]  # ids of each query, best first

HOST = "127.0.0.1"
START_LIMIT_S = 120.0
READY_LIMIT_S = 1_800.0
STOP_LIMIT_S = 20.0


@dataclass(frozen=True)
class Ingested:
    """Seconds until all vectors were acknowledged, and until the index answers for all of them."""

    write_s: float
    ready_s: float


class Server(Protocol):
    """A running server with an empty collection; the constructor starts it in `folder`.

    address  what a Session needs to reach it, as JSON values
    pid      of its first process
    """

    address: dict[str, Any]
    pid: int

    def __init__(self, folder: Path, d: int, server: Settings) -> None: ...

    def versions(self) -> dict[str, str]: ...

    def ingest(self, vectors: Vectors, index: Settings) -> Ingested:
        """Load vectors, ids 0 to n - 1, into an empty collection with this index."""
        ...

    def set_search(self, search: Settings) -> None:
        """Apply what the server, and not each query, has to be told."""
        ...

    def close(self) -> None: ...


class Session(Protocol):
    """One client; is_shared says that the threads of a process share one, as its users do."""

    is_shared: bool

    def __init__(self, address: Settings, search: Settings, k: int) -> None: ...

    def ask(self, queries: Vectors) -> Answers:
        """Neighbours of (m, d) queries by one call, scores fetched and left aside."""
        ...

    def close(self) -> None: ...


# --- processes ----------------------------------------------------------------------------------


class Program:
    """A server program with its log; stopped by SIGTERM, and its whole group after a while."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.log = folder / "server.log"
        self.stop_signal = stop_signal
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.pid = self.process.pid

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return once is_ready; raises RuntimeError with the log's end if the program gave up."""
        give_up = time.monotonic() + START_LIMIT_S
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > give_up:
                words = self.log.read_text(errors="replace").strip().splitlines()[-8:]
                raise RuntimeError("the server did not start: " + " | ".join(words))
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def _end_with_parent() -> None:
    """Let the kernel end this process once the one that started it has ended."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def package_folder(name: str) -> Path:
    """Where a package lies, without running it."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"the package {name} is not installed")
    return Path(found.submodule_search_locations[0])


def answers_at(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def blocks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
