"""Kills under load: shards, the registrar and drivers die while others write, read and check.

    make ray-kills -> [kills.py] -> soardb.cluster, nodes.py; test_faults.py runs a short form

Writers own ids of their own and know what was acknowledged. A call that ends in an error is made
again under its request id until it is answered, as a caller would. What must hold:

* no acknowledged write is lost: at the end every point is exactly as its writer knows it;
* none is applied twice: every count that was answered is right (a delete done again would answer 0,
  an insert done again AlreadyExists), and shards have given as many numbers as was written;
* a search that is not marked as partial has every point; one that is names the shards without which
  it was answered, and nothing is missing but what is on them.

    python -m tests.cluster.kills --kills 100 --seed 1
    python -m tests.cluster.kills --nodes 3 --kills 100   (nodes die too, and shards move: Linux)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

import soardb
from benchmarks import provenance
from soardb import F
from soardb.cluster import Cluster, ShardedCollection
from soardb.cluster.calls import REGISTRAR, shard_name
from soardb.cluster.placement import shard_of
from soardb.cluster.places import alive_nodes, this_node
from soardb.errors import InvalidArgument, TimedOut, Unavailable
from tests.cluster.nodes import Around, Nodes, why_not

D = 8
STILL = list(range(1_000_000, 1_000_200))
"""Points that nobody changes, for searches whose answer is known."""

_SPAN = 400  # ids of one writer
_TRY_S = 3.0  # of one attempt of a writer, short so that replies are lost now and then
_SEARCH_S = 2.0


def vectors_of(ids: list[int], version: int) -> np.ndarray:
    """(n, D) float32 that differ by id and version."""
    return np.stack([np.random.default_rng([i, version]).normal(size=D) for i in ids]).astype("f")


@dataclass
class Tally:
    """What was done and seen; safe for many threads by its lock."""

    kills: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, n: int = 1) -> None:
        with self.lock:
            self.calls[what] += n

    def say(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)


class WriterOfOwn(threading.Thread):
    """Writes, patches, inserts and deletes points of its own ids; knows what they must be."""

    def __init__(
        self, collection: ShardedCollection, number: int, seed: int, tally: Tally, stop: Any
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._collection, self._tally, self._stopped = collection, tally, stop
        self._random = random.Random(f"{seed}:{number}")
        self._first = number * _SPAN
        self.known: dict[int, int] = {}  # {id: version}
        self._version = 0

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._step()
        except BaseException:  # noqa: BLE001  the campaign reports it
            self._tally.say(f"{self.name}: {traceback.format_exc()}")

    def _step(self) -> None:
        self._version += 1
        version, n = self._version, self._random.randint(1, 24)
        ids = self._random.sample(range(self._first, self._first + _SPAN), n)
        there = [i for i in ids if i in self.known]
        fresh = [i for i in ids if i not in self.known]
        kind = self._random.choice(["upsert", "upsert", "insert", "patch", "delete"])
        payloads = {"version": [version] * n, "owner": [self._first] * n}
        if kind == "upsert":
            self._sure("upsert", n, ids, vectors_of(ids, version), payloads)
            self._wrote(ids, version)
        elif kind == "insert" and fresh:
            some = {name: values[: len(fresh)] for name, values in payloads.items()}
            self._sure("insert", len(fresh), fresh, vectors_of(fresh, version), some)
            self._wrote(fresh, version)
        elif kind == "patch" and there:
            self._sure("update_payload", len(there), {"version": version}, ids=there)
            self._wrote(there, version)
        elif kind == "delete":
            self._sure("delete", len(there), ids)
            self._numbered(0, there)
            for i in there:
                del self.known[i]

    def _wrote(self, ids: list[int], version: int) -> None:
        self._numbered(len(ids), [i for i in ids if i in self.known])
        self.known |= dict.fromkeys(ids, version)

    def _numbered(self, rows: int, struck: list[int]) -> None:
        """A shard numbers each row, and once each call that strikes some."""
        shards = len(set(shard_of(struck, self._collection.shards).tolist()))
        with self._tally.lock:
            self._tally.numbers += rows + shards

    def _sure(self, method: str, expected: int, *arguments: Any, **options: Any) -> None:
        """Make a call until it is answered; the answer must be that of one that was made once."""
        request = f"{self.name}-{self._version}"
        while True:
            try:
                got = getattr(self._collection, method)(
                    *arguments, **options, request_id=request, timeout=_TRY_S
                )
            except (TimedOut, Unavailable):
                self._tally.count("asked again")
                continue
            self._tally.count(method)
            if got != expected:
                self._tally.say(f"{self.name}: {method} answered {got}, expected {expected}")
            return


class Reader(threading.Thread):
    """Searches that must have every point that nobody changes, or say which shards are missing."""

    def __init__(
        self, collection: ShardedCollection, tally: Tally, stop: Any, wait_s: float = _SEARCH_S
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self._wait_s = wait_s
        self._collection, self._tally, self._stopped = collection, tally, stop
        self._owners = dict(zip(STILL, shard_of(STILL, collection.shards).tolist(), strict=True))

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._look(allow_partial=True)
                self._look(allow_partial=False)
                time.sleep(0.05)
        except BaseException:  # noqa: BLE001  the campaign reports it
            self._tally.say(f"{self.name}: {traceback.format_exc()}")

    def _look(self, allow_partial: bool) -> None:
        try:
            hits = self._collection.search(
                np.ones(D, np.float32),
                len(STILL),
                filter=F("still") == True,  # noqa: E712
                exact=True,  # c = k: nothing may be lost by the merge
                with_payload=False,
                timeout=self._wait_s,
                allow_partial=allow_partial,
            )
        except (TimedOut, Unavailable):
            self._tally.count("searches refused")
            return
        missing = set(hits.plan.spread.missing) if hits.is_partial else set()
        self._tally.count("searches partial" if missing else "searches whole")
        if missing and not allow_partial:
            self._tally.say("a partial answer that nobody allowed")
        expected = {i for i, owner in self._owners.items() if owner not in missing}
        if set(hits.ids.tolist()) != expected:
            self._tally.say(
                f"a search without shards {sorted(missing)} found {len(hits)} points, expected "
                f"{len(expected)}"
            )


class Killer:
    """Kills one thing at a time and waits until the cluster answers again."""

    def __init__(
        self,
        cluster: Cluster,
        tally: Tally,
        seed: int,
        kinds: list[str],
        around: Around | None = None,
    ) -> None:
        self._cluster, self._tally, self._kinds = cluster, tally, kinds
        self._random, self._around = random.Random(seed), around

    def kill(self) -> None:
        """One kill of a kind that is drawn."""
        kind = self._random.choice(self._kinds)
        getattr(self, f"_{kind}")()
        self._tally.kills[kind] += 1
        self._cluster.processes(timeout=180.0)
        time.sleep(self._random.uniform(0.0, 1.0))

    def _shard_process(self) -> None:
        """SIGKILL, as an operator, a crash or the kernel's killer would."""
        self._end(self._random.choice(sorted(self._cluster.processes(timeout=180.0))))

    def _two_processes(self) -> None:
        for name in self._random.sample(sorted(self._cluster.processes(timeout=180.0)), 2):
            self._end(name)

    def _end(self, name: str) -> None:
        number = self._cluster.processes(timeout=180.0)[name]
        if self._around is None:
            os.kill(number, signal.SIGKILL)
        else:
            self._around.kill_process(self._cluster.places(timeout=180.0)[name], number)

    def _actor(self) -> None:
        """ray.kill, after which Ray starts it again."""
        self._ray_kill(self._a_shard(), no_restart=False)

    def _actor_for_good(self) -> None:
        """ray.kill, after which the registrar makes another one."""
        self._ray_kill(self._a_shard(), no_restart=True)

    def _registrar(self) -> None:
        self._ray_kill(REGISTRAR, no_restart=self._random.random() < 0.5)
        self._cluster.list_collections(timeout=180.0)

    def _driver(self) -> None:
        """A program that writes to a collection of its own is killed in the middle of it."""
        name = f"driver-{self._tally.kills['driver']}"
        program = [sys.executable, "-P", "-m", "tests.cluster.kills", "--drive"]
        process = subprocess.Popen(
            [*program, self._cluster.storage, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        told = 0
        end = time.monotonic() + self._random.uniform(0.2, 1.5)
        for line in process.stdout:
            if not line.strip().isdigit():  # Ray says much of nodes that die
                continue
            if told == 0:
                end = time.monotonic() + self._random.uniform(0.2, 1.5)
            told = int(line)
            if time.monotonic() > end:
                break
        process.kill()
        process.stdout.close()
        process.wait()
        collection = self._cluster.get_collection(name, timeout=180.0)
        held = collection.count(timeout=180.0)
        # What was under way may be there or not, on each shard; what was told must be.
        if not told <= held <= told + 2 * DRIVE_BATCH:
            self._tally.say(f"{name} was told of {told} points, there are {held}")
        self._cluster.drop_collection(name, timeout=180.0)

    def _a_shard(self) -> str:
        return shard_name(self._random.randrange(self._cluster.shards))

    def _ray_kill(self, name: str, *, no_restart: bool) -> None:
        ray.kill(self._cluster._actors._found(name), no_restart=no_restart)

    # ------------------------------------------------------------------ with nodes

    def _node(self) -> None:
        """All processes of a node die at once; some time later it is there again."""
        assert self._around is not None
        address = self._random.choice(_others())
        self._around.kill(address)
        time.sleep(self._random.uniform(0.0, 12.0))
        self._around.start(address)
        while address not in _others():
            time.sleep(0.2)

    def _move(self) -> None:
        """Something dies while shards move off a node or back."""
        without = self._random.choice([[], [self._random.choice(_others())]])
        moving = _Moving(self._cluster, without)
        moving.start()
        time.sleep(self._random.uniform(0.0, 3.0))
        getattr(self, f"_{self._random.choice(['shard_process', 'registrar', 'actor', 'node'])}")()
        moving.join(300.0)
        if moving.is_alive():
            self._tally.say("a rebalancing hangs")
        self._tally.count("shards moved", len(moving.moved))


class _Moving(threading.Thread):
    """One rebalancing; what goes wrong with it is no loss."""

    def __init__(self, cluster: Cluster, without: list[str]) -> None:
        super().__init__(name="moving", daemon=True)
        self._cluster, self._without = cluster, without
        self.moved: dict[str, str] = {}

    def run(self) -> None:
        with contextlib.suppress(TimedOut, Unavailable, InvalidArgument):  # the node is away now
            self.moved = self._cluster.rebalance(without=self._without, timeout=120.0)


def _others() -> list[str]:
    """Addresses of the nodes that are alive, without the one of this program, the head."""
    here = this_node()
    return sorted(address for node, address in alive_nodes().items() if node != here)


KINDS = ["shard_process", "two_processes", "actor", "actor_for_good", "registrar"]
DRIVE_BATCH = 50


def drive(storage: str, name: str) -> None:
    """A driver that writes until it is killed, and says how many points were acknowledged."""
    with soardb.connect("ray://auto", storage=storage) as opened:
        collection: Any = opened.create_collection(name, D)
        done = 0
        while True:
            ids = list(range(done, done + DRIVE_BATCH))
            done += collection.upsert(ids, vectors_of(ids, 0))
            print(done, flush=True)


def campaign(
    cluster: Cluster,
    kills: int,
    seed: int,
    kinds: list[str],
    writers: int = 3,
    around: Around | None = None,
) -> Tally:
    """Kill so often under load, then check everything; `wrong` of what comes back must be empty."""
    tally, stop = Tally(), threading.Event()
    collection: Any = cluster.create_collection(
        "load", D, "l2", schema={"version": "int", "still": "bool", "owner": "int"}
    )
    collection.upsert(STILL, vectors_of(STILL, 0), {"still": [True] * len(STILL)})
    tally.numbers = len(STILL)
    threads = [WriterOfOwn(collection, i, seed, tally, stop) for i in range(writers)]
    reader = Reader(collection, tally, stop)
    for thread in (*threads, reader):
        thread.start()
    killer = Killer(cluster, tally, seed, kinds, around)
    for _ in range(kills):
        killer.kill()
        print(dict(tally.kills), dict(tally.calls), file=sys.stderr, flush=True)
        if tally.wrong:
            break
    stop.set()
    for thread in (*threads, reader):
        thread.join(180.0)
        if thread.is_alive():
            tally.say(f"{thread.name} hangs")
    check(collection, threads, tally)
    cluster.drop_collection("load", timeout=180.0)
    return tally


def check(collection: Any, writers: list[WriterOfOwn], tally: Tally) -> None:
    """Every point is as its writer knows it, and no row was written twice."""
    expected = {i: version for writer in writers for i, version in writer.known.items()}
    token, found = None, {}
    while True:
        page = collection.scroll(page_size=1000, page_token=token, timeout=180.0)
        for point in page.points:
            if not point.payload.get("still"):
                if point.id in found:
                    tally.say(f"point {point.id} is there twice")
                found[point.id] = point.payload["version"]
        token = page.next_page_token
        if token is None:
            break
    if found != expected:
        lost, strange = expected.keys() - found.keys(), found.keys() - expected.keys()
        old = [i for i in expected.keys() & found.keys() if expected[i] != found[i]]
        tally.say(f"lost {sorted(lost)[:9]}, came back {sorted(strange)[:9]}, old {old[:9]}")
    if collection.count() != len(expected) + len(STILL):
        tally.say(f"count {collection.count()}, expected {len(expected) + len(STILL)}")
    if collection.seq != tally.numbers:
        tally.say(f"the shards gave {collection.seq} numbers, expected {tally.numbers}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--drive", nargs=2, help="storage and name: be a driver that is killed")
    parser.add_argument("--nodes", type=int, help="so many nodes in namespaces of their own")
    parser.add_argument("--data", action="store_true", help="nodes have disks of their own")
    parser.add_argument("--inside", nargs=2, help="storage and data: be the driver on the head")
    given = parser.parse_args()
    if given.drive:
        drive(*given.drive)
    elif given.inside:
        inside(given)
    elif given.nodes:
        with_nodes(given)
    else:
        alone(given)


def with_nodes(given: argparse.Namespace) -> None:
    """Make the nodes and let the campaign run on the first."""
    missing = why_not()
    if missing is not None:
        sys.exit(f"no nodes can be made here: {missing}")
    with Nodes(given.nodes) as nodes:
        data = nodes.data if given.data else ""
        options = ["--kills", given.kills, "--seed", given.seed, "--shards", given.shards]
        command = ["-m", "tests.cluster.kills", *options, "--inside", nodes.storage, data]
        told, code = nodes.drive([sys.executable, "-P", *map(str, command)])
    print(json.dumps(told, indent=1))
    sys.exit(code or bool(told["wrong"]))


def inside(given: argparse.Namespace) -> None:
    """The campaign, on a node."""
    storage, data = given.inside
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    cluster = Cluster(
        "ray://auto",
        storage=storage,
        data=data or None,
        shards=given.shards,
        timeout=120.0,
        write_timeout=120.0,
    )
    began = time.monotonic()
    kinds = [*KINDS, "driver", "node", "move"]
    around = Around()
    tally = campaign(cluster, given.kills, given.seed, kinds, around=around)
    cluster.stop()
    around.tell(report(tally, began))


def alone(given: argparse.Namespace) -> None:
    """A Ray of this machine and process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(
            num_cpus=1,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
        )
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(
            "ray://auto", storage=folder, shards=given.shards, timeout=120.0, write_timeout=120.0
        )
        tally = campaign(cluster, given.kills, given.seed, [*KINDS, "driver"])
        cluster.stop()
    ray.shutdown()
    print(json.dumps(report(tally, began), indent=1))
    sys.exit(bool(tally.wrong))


def report(tally: Tally, began: float) -> dict[str, Any]:
    """What was done, as JSON values; something is wrong where "wrong" is not empty."""
    return {
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "ray": ray.__version__,
        "kills": dict(tally.kills),
        "calls": dict(tally.calls),
        "numbers": tally.numbers,
        "seconds": round(time.monotonic() - began),
        "wrong": tally.wrong,
    }


if __name__ == "__main__":
    main()
