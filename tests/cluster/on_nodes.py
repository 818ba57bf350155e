"""Ray nodes with addresses of their own: same answers as one collection, and shards that move.

    make ray-nodes -> [on_nodes.py] -> nodes.py (the nodes), kills.py (load and checks)

A driver on the head, and one outside by Ray Client, ask what an embedded collection of the same
points is asked, exactly, and time it for batches of 1, 64 and 1,024 queries. Then shards move off a
node and back, while others write and search: no search may fail, be partial or miss a point, and
every write is done once. All this with shards in a folder that all nodes see, then with a disk for
each.

    python -m tests.cluster.on_nodes --out benchmarks/results/cluster-nodes.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import soardb
from benchmarks import provenance
from soardb.cluster import Cluster
from soardb.cluster.places import alive_nodes
from tests.cluster.kills import (
    STILL,
    D,
    Reader,
    Tally,
    WriterOfOwn,
    check,
    vectors_of,
)
from tests.cluster.nodes import Around, Nodes, why_not

N, WIDTH, K = 20_000, 64, 10
BATCHES = (1, 64, 1_024)
SHARDS = 4
_WAIT_S = 120.0
_CLIENT_TRIES = 3  # Ray's proxy gives a server of its own to each client, and on a slow machine up


def points() -> tuple[np.ndarray, np.ndarray]:
    """(N, WIDTH) float32 in 200 clouds, and (1024, WIDTH) queries from the same clouds."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(200, WIDTH))
    drawn = centres[random.integers(0, 200, N + max(BATCHES))]
    drawn += 0.6 * random.normal(size=drawn.shape)
    return drawn[:N].astype(np.float32), drawn[N:].astype(np.float32)


def filled(database: Any) -> Any:
    """A collection of the points, with its index built."""
    vectors, _ = points()
    collection = database.create_collection("same", WIDTH, "l2", schema={"n": "int"})
    for begin in range(0, N, 2_500):
        ids = list(range(begin, begin + 2_500))
        collection.upsert(ids, vectors[begin : begin + 2_500], {"n": ids})
    collection.compact()
    return collection


# ---------------------------------------------------------------------- answers and time


def differences(one: Any, many: Any) -> list[str]:
    """In what a collection over shards answers otherwise than an embedded one: must be nothing."""
    _, queries = points()
    some = queries[:64]
    wrong = []
    asked: dict[str, Callable[[Any], Any]] = {
        "exact": lambda c: c.search_columns(some, K, exact=True),
        "exact, filter": lambda c: c.search_columns(some, K, exact=True, filter="n < 900"),
        "exact, far": lambda c: c.search_columns(some[:4], 500, exact=True),
    }
    for name, ask in asked.items():
        first, second = ask(one), ask(many)
        if first.counts.tolist() != second.counts.tolist():
            wrong.append(f"{name}: other counts")
            continue
        for query, (a, b) in enumerate(zip(first.each(), second.each(), strict=True)):
            if a.scores.tolist() != b.scores.tolist():
                wrong.append(f"{name}, query {query}: other scores")
            # Points with the very same score come in the order of writing in one, of ids in the
            # other, and the last such ones of an answer may be others.
            last = a.scores[-1:]
            if _by_score(a, last) != _by_score(b, last):
                wrong.append(f"{name}, query {query}: other ids")
    if one.count("n >= 15000") != many.count("n >= 15000") or many.count() != N:
        wrong.append("count")
    if [p.payload for p in one.get([5, 6, N + 1][:2])] != [p.payload for p in many.get([5, 6])]:
        wrong.append("get")
    if [p.id for p in many.scroll(page_size=50).points] != list(range(50)):
        wrong.append("scroll")
    return wrong


def _by_score(found: Any, last: Any) -> set[tuple[float, int]]:
    """(score, id) of the hits of one query, without those that have the last score."""
    pairs = zip(found.scores.tolist(), np.asarray(found.ids).tolist(), strict=True)
    return {(score, i) for score, i in pairs if score != last}


def timed(collection: Any, seconds: float) -> dict[str, Any]:
    """Milliseconds a query for each size of a batch, and the recall at the default target."""
    _, queries = points()
    found = {}
    for size in BATCHES:
        times: list[float] = []
        until = time.perf_counter() + seconds
        collection.search_columns(queries[:size], K, with_payload=False)
        while time.perf_counter() < until or len(times) < 5:
            first = (len(times) * size) % (len(queries) - size + 1)
            batch = queries[first : first + size]
            began = time.perf_counter()
            collection.search_columns(batch, K, with_payload=False)
            times.append((time.perf_counter() - began) * 1e3 / size)
        found[str(size)] = {
            "ms_a_query": statistics.median(times),
            "p90_ms_a_query": float(np.quantile(times, 0.9)),
            "calls": len(times),
        }
    some = queries[:256]
    near = collection.search_columns(some, K, with_payload=False).ids.reshape(-1, K)
    true = collection.search_columns(some, K, with_payload=False, exact=True).ids.reshape(-1, K)
    hits = sum(len(set(a) & set(b)) for a, b in zip(near.tolist(), true.tolist(), strict=True))
    return {"recall_at_10": hits / true.size, "batches": found}


def overhead(one: dict[str, Any], many: dict[str, Any]) -> dict[str, float]:
    """Milliseconds a query more than embedded, by the size of a batch."""
    return {
        size: many["batches"][size]["ms_a_query"] - one["batches"][size]["ms_a_query"]
        for size in one["batches"]
    }


# ---------------------------------------------------------------------- moving under load


def moved_under_load(cluster: Cluster, rounds: int) -> dict[str, Any]:
    """Empty one node after the other and fill it again, while others write and search."""
    tally, stop = Tally(), threading.Event()
    collection: Any = cluster.create_collection(
        "load", D, "l2", schema={"version": "int", "still": "bool", "owner": "int"}
    )
    collection.upsert(STILL, vectors_of(STILL, 0), {"still": [True] * len(STILL)})
    tally.numbers = len(STILL)
    threads = [WriterOfOwn(collection, i, 1, tally, stop) for i in range(2)]
    reader = Reader(collection, tally, stop, _WAIT_S)
    for thread in (*threads, reader):
        thread.start()
    began, moves, seconds = time.monotonic(), 0, []
    nodes = sorted(alive_nodes().values())
    for i in range(rounds):
        for without in ([nodes[i % len(nodes)]], []):
            start = time.monotonic()
            done = cluster.rebalance(without=without, timeout=_WAIT_S)
            moves += len(done)
            seconds.append((time.monotonic() - start) / max(1, len(done)))
            held = set(cluster.places().values())
            if set(without) & held:
                tally.say(f"{without} was to be empty, shards are on {sorted(held)}")
    stop.set()
    for thread in (*threads, reader):
        thread.join(180.0)
        if thread.is_alive():
            tally.say(f"{thread.name} hangs")
    check(collection, threads, tally)
    for bad in ("searches partial", "searches refused"):
        if tally.calls[bad]:
            tally.say(f"{tally.calls[bad]} {bad} while shards moved")
    return {
        "moves": moves,
        "seconds_a_move": statistics.median(seconds),
        "seconds": time.monotonic() - began,
        "calls": dict(tally.calls),
        "wrong": tally.wrong,
    }


# ---------------------------------------------------------------------- the programs


def inside(given: argparse.Namespace) -> None:
    """A driver on the head. With --data the nodes' disks are their own."""
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    cluster = Cluster(
        "ray://auto",
        storage=given.inside[0],
        data=given.inside[1] or None,
        shards=SHARDS,
        timeout=_WAIT_S,
        write_timeout=_WAIT_S,
    )
    found: dict[str, Any] = {"nodes": len(set(cluster.places().values()))}
    if found["nodes"] < given.nodes:
        raise SystemExit(f"expected shards on {given.nodes} nodes, they are on {found['nodes']}")
    many = filled(cluster)
    if given.embedded:
        with soardb.connect(given.embedded) as database:
            one = filled(database)
            found["differences"] = differences(one, many)
            found["embedded"] = timed(one, given.seconds)
            found["cluster"] = timed(many, given.seconds)
            found["overhead_ms_a_query"] = overhead(found["embedded"], found["cluster"])
            found["moved"] = moved_under_load(cluster, given.rounds)
            found["differences after"] = differences(one, many)
    else:
        found["moved"] = moved_under_load(cluster, given.rounds)
    Around().tell(found)


def outside(given: argparse.Namespace) -> None:
    """A driver of no node, by Ray Client; the points are there already."""
    with Cluster(given.outside[0], storage=given.outside[1], timeout=_WAIT_S) as cluster:
        many = cluster.get_collection("same")
        with soardb.connect(given.embedded) as database:
            one = database.get_collection("same")
            found: dict[str, Any] = {"differences": differences(one, many)}
            found["cluster"] = timed(many, given.seconds)
    print(json.dumps(found))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of emptying a node and filling it")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing, for each batch size")
    parser.add_argument("--out", type=Path, help="a file for the result")
    parser.add_argument("--embedded", help="folder for the embedded collection")
    parser.add_argument("--inside", nargs=2, help="storage and data: be the driver on the head")
    parser.add_argument("--outside", nargs=2, help="address and storage: be one by Ray Client")
    given = parser.parse_args()
    if given.inside:
        inside(given)
    elif given.outside:
        outside(given)
    else:
        sys.exit(around(given))


def around(given: argparse.Namespace) -> int:
    """Make the nodes, run the drivers, write the result; 1 where something is wrong."""
    missing = why_not()
    if missing is not None:
        print(f"no nodes can be made here: {missing}", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"commit": provenance.commit(), "machine": provenance.machine()}
    result |= {"n": N, "d": WIDTH, "k": K, "shards": SHARDS, "ray": ray.__version__}
    me = [sys.executable, "-P", "-m", "tests.cluster.on_nodes"]
    me += ["--nodes", str(given.nodes)]
    me += ["--rounds", str(given.rounds), "--seconds", str(given.seconds)]
    with Nodes(given.nodes) as nodes, tempfile.TemporaryDirectory() as embedded:
        for name, data in (("shared folder", ""), ("own disks", nodes.data)):
            storage = f"{nodes.storage}/{name.split()[0]}"
            options = [] if data else ["--embedded", embedded]
            told, code = nodes.drive([*me, *options, "--inside", storage, data])
            if code:
                return code
            result[name] = told
        outside = [*me, "--embedded", embedded]
        outside += ["--outside", nodes.address, f"{nodes.storage}/shared"]
        for _ in range(_CLIENT_TRIES):
            done = subprocess.run(
                outside,
                capture_output=True,
                text=True,
                check=False,
                env=nodes.environment,
            )
            if done.returncode == 0:
                result["by Ray Client"] = json.loads(done.stdout.splitlines()[-1])
                break
        else:
            result["by Ray Client"] = {"differences": [done.stderr[-2000:]]}
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return int(any(_wrong(part) for part in result.values() if isinstance(part, dict)))


def _wrong(part: dict[str, Any]) -> bool:
    return bool(
        part.get("differences")
        or part.get("differences after")
        or part.get("moved", {}).get("wrong")
    )


if __name__ == "__main__":
    main()
