"""Load on one server: closed-loop clients, counted and timed, inside the environment of the peer.

    settings as lines of JSON -> service_peers.py -> [service_load.py] -> results as lines of JSON

    python -m benchmarks.service_load            the controller: starts the server, takes orders
    python -m benchmarks.service_load --clients  threads of clients, started by the controller

The controller reads one order a line and answers each by one line, {"error": ...} if it failed:

    open   start the server of a peer in a folder
    ingest load the vectors with an index; seconds of writing, and until it answers
    ask    all queries once, one by one: their ids, for recall
    load   N clients, each with one call under way at any time, for S seconds
    close  stop the server

Clients are threads in one process or spread over two, never in the process of the controller. A
client warms up, then a call counts if it ended within the window; so the rate is that of the
window, whatever was under way at its edges. Percentiles are of these calls. The ids that were
found under load go back too, so recall is judged on the very answers that were timed.

No import of soardb here: this runs where only NumPy and one peer are installed. The driver is
bench_service.py; it judges recall.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.service_peers import PEERS
from benchmarks.service_programs import Answers, Server, Session, Settings, Vectors

PROCESSES = 2  # of clients, at most
LEAD_S = 0.2  # from the order to the beginning of the warm-up, so that all clients begin together

clock = time.monotonic  # one clock for all processes of the machine


# --- clients ------------------------------------------------------------------------------------


class Client(threading.Thread):
    """One closed loop over blocks of queries; begins at a query of its own."""

    def __init__(self, session: Session, queries: Vectors, order: Settings, number: int) -> None:
        super().__init__(daemon=True)
        self.session, self.batch = session, int(order["batch"])
        turn = np.random.default_rng([int(order["seed"]), number]).permutation(len(queries))
        repeats = -(-self.batch // len(turn)) + 1
        self.rows = np.tile(turn, repeats)[: (repeats - 1) * len(turn) + self.batch]
        self.queries = np.ascontiguousarray(queries[self.rows])
        self.period = (repeats - 1) * len(turn)
        self.begin = self.end = 0.0
        self.latencies_s: list[float] = []
        self.found: dict[int, tuple[npt.NDArray[Any], Answers]] = {}
        self.error = ""

    def run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - whatever a library raises goes to the driver
            self.error = f"{type(error).__name__}: {error}"

    def _loop(self) -> None:
        ask, batch, latencies = self.session.ask, self.batch, self.latencies_s
        time.sleep(max(0.0, self.begin - clock()))
        warm, at = self.begin + self.warm_s, 0
        while (start := clock()) < self.end:
            answers = ask(self.queries[at : at + batch])
            end = clock()
            if warm <= end <= self.end:
                latencies.append(end - start)
                self.found[at] = (self.rows[at : at + batch], answers)
            at = (at + batch) % self.period

    warm_s = 0.0

    def answers(self) -> dict[int, list[int]]:
        """Ids by the row of their query."""
        return {
            row: ids
            for rows, answers in self.found.values()
            for row, ids in zip(rows.tolist(), answers, strict=True)
        }


def clients_main() -> int:
    """Serve orders of the controller: prepare, go, stop. One process of clients."""
    queries: Vectors | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if queries is None:
                queries = np.load(order["queries"])
            _serve_load(order, queries)
        except Exception as error:  # noqa: BLE001 - the controller passes it on
            _answer({"error": f"{type(error).__name__}: {error}"})
    return 0


def _serve_load(order: dict[str, Any], queries: Vectors) -> None:
    session_of = PEERS[order["peer"]][1]

    def session() -> Session:
        return session_of(order["address"], order["search"], order["k"])

    threads = int(order["threads"])
    if session_of.is_shared:
        sessions = [session()] * threads
    else:
        sessions = [session() for _ in range(threads)]
    clients = [
        Client(one, queries, order, int(order["first"]) + number)
        for number, one in enumerate(sessions)
    ]
    _answer({"ready": True})
    go = json.loads(sys.stdin.readline())
    for client in clients:
        client.begin, client.end, client.warm_s = go["begin"], go["end"], go["warm_s"]
        client.start()
    for client in clients:
        client.join()
    for one in set(map(id, sessions)):
        next(s for s in sessions if id(s) == one).close()
    answers: dict[int, list[int]] = {}
    for client in clients:
        answers |= client.answers()
    _answer(
        {
            "latencies_ms": [round(1e3 * s, 4) for c in clients for s in c.latencies_s],
            "answers": sorted(answers.items()),
            "errors": [client.error for client in clients if client.error],
        }
    )


# --- the controller -----------------------------------------------------------------------------


class Controller:
    """A server and the processes of its clients."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.peer = str(order["peer"])
        self.vectors: Vectors = np.load(order["vectors"], mmap_mode="r")
        self.queries: Vectors = np.load(order["queries"])
        self.queries_path = str(order["queries"])
        self.k = int(order["k"])
        folder = Path(order["folder"])
        self.server: Server = PEERS[self.peer][0](folder, self.vectors.shape[1], order["server"])
        self.folder = folder
        self.clients: list[subprocess.Popen[str]] = []

    def versions(self) -> dict[str, Any]:
        return {"versions": self.server.versions()}

    def ingest(self, order: dict[str, Any]) -> dict[str, Any]:
        busy = _cpu_s(_tree(self.server.pid))
        done = self.server.ingest(np.asarray(self.vectors), order["index"])
        return {
            "write_s": done.write_s,
            "ready_s": done.ready_s,
            "server_cpu_s": max(0.0, _cpu_s(_tree(self.server.pid)) - busy),
            "server_bytes": _proportional_bytes(_tree(self.server.pid)),
            "disk_bytes": _disk_bytes(self.folder),
        }

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self.server.set_search(order["search"])
        session = PEERS[self.peer][1](self.server.address, order["search"], self.k)
        start = clock()
        answers = [session.ask(self.queries[i : i + 1])[0] for i in range(len(self.queries))]
        seconds = clock() - start
        session.close()
        return {"ids": answers, "seconds": seconds}

    def load(self, order: dict[str, Any]) -> dict[str, Any]:
        """Run the clients; rates of calls and queries, percentiles, and what they cost."""
        self.server.set_search(order["search"])
        clients = int(order["clients"])
        processes = min(int(order["processes"]), clients)
        self._want(processes)
        shares = [clients // processes + (i < clients % processes) for i in range(processes)]
        team = self.clients[:processes]
        for number, (process, share) in enumerate(zip(team, shares, strict=True)):
            words = {
                "peer": self.peer,
                "queries": self.queries_path,
                "address": self.server.address,
                "search": order["search"],
                "k": self.k,
                "threads": share,
                "first": sum(shares[:number]),
                "batch": order["batch"],
                "seed": order["seed"],
            }
            _tell(process, words)
        for process in team:
            _hear(process)
        begin = clock() + LEAD_S
        warm = begin + order["warm_s"]
        end = warm + order["seconds"]
        for process in team:
            _tell(process, {"begin": begin, "end": end, "warm_s": order["warm_s"]})
        time.sleep(max(0.0, warm - clock()))
        servers, asking = _tree(self.server.pid), [process.pid for process in team]
        busy, busy_clients, all_busy = _cpu_s(servers), _cpu_s(asking), machine_cpu_s()
        time.sleep(max(0.0, end - clock()))
        busy, busy_clients = _cpu_s(servers) - busy, _cpu_s(asking) - busy_clients
        others = machine_cpu_s() - all_busy - busy - busy_clients
        heard = [_hear(process) for process in team]
        errors = [error for one in heard for error in one["errors"]]
        if errors:
            raise RuntimeError(f"{len(errors)} of {clients} clients failed: {errors[0]}")
        latencies = np.array([ms for one in heard for ms in one["latencies_ms"]])
        if not len(latencies):
            raise RuntimeError(f"no call ended within {order['seconds']} s")
        calls = len(latencies) / order["seconds"]
        answers = {row: ids for one in heard for row, ids in one["answers"]}
        return {
            "calls_per_s": calls,
            "queries_per_s": calls * order["batch"],
            "calls": len(latencies),
            "p50_ms": float(np.percentile(latencies, 50)),
            "p99_ms": float(np.percentile(latencies, 99)),
            "server_cpu_ms": 1e3 * busy / (len(latencies) * order["batch"]),
            "client_cpu_ms": 1e3 * busy_clients / (len(latencies) * order["batch"]),
            "other_cores": max(0.0, others / order["seconds"]),
            "answers": sorted(answers.items()),
        }

    def _want(self, processes: int) -> None:
        while len(self.clients) < processes:
            command = [sys.executable, "-P", "-m", "benchmarks.service_load", "--clients"]
            self.clients.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )

    def close(self) -> None:
        for process in self.clients:
            process.kill()
            process.wait()
        self.server.close()


def _tell(process: subprocess.Popen[str], words: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of clients ended with code {process.wait()}")
    heard: dict[str, Any] = json.loads(line)
    if "error" in heard:
        raise RuntimeError(heard["error"])
    return heard


def _answer(words: dict[str, Any]) -> None:
    _OUT.write(json.dumps(words) + "\n")
    _OUT.flush()


# What libraries print must not get between the lines of JSON.
_OUT = sys.stdout


def controller_main() -> int:
    """Take orders until `close` or the end of the input; the server is stopped in any case."""
    controller: Controller | None = None
    try:
        for line in sys.stdin:
            order = json.loads(line)
            try:
                if order["op"] == "close":
                    break
                if order["op"] == "open":
                    controller = Controller(order)
                    _answer(controller.versions())
                    continue
                assert controller is not None, "open comes first"
                operation = {
                    "ingest": controller.ingest,
                    "ask": controller.ask,
                    "load": controller.load,
                }[order["op"]]
                _answer(operation(order))
            except Exception as error:  # noqa: BLE001 - whatever a library raises goes to the driver
                _answer({"error": f"{type(error).__name__}: {error}"})
    finally:
        if controller is not None:
            controller.close()
    _answer({"closed": True})
    return 0


# --- processes, as Linux tells of them ----------------------------------------------------------


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds of these processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Processor seconds of everything on the machine, and those that its host took away."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, hard, soft, stolen = map(int, fields[:8])
    return (user + nice + system + hard + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _proportional_bytes(pids: Sequence[int]) -> int:
    """Memory of these processes, what they share counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _disk_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total


def _raise_loopback() -> None:
    """Set the loopback of a new network namespace up; nothing where it is up already."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, get_flags, request))[1]
        if not flags & up:
            fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the controller, or with --clients one process of clients."""
    global _OUT
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_load")
    parser.add_argument("--clients", action="store_true")
    is_client = parser.parse_args(arguments).clients
    _OUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if is_client:
        return clients_main()
    _raise_loopback()
    return controller_main()


if __name__ == "__main__":
    sys.exit(main())
