"""On which node a shard lives: on any that reaches its directory.

    registrar.py -> [places.py] -> Ray

Where shards lie in a folder that all nodes share, nodes take turns, and a shard whose node is lost
is made again on another. Where each node has a disk of its own, nodes are asked who has the
directory, and the shard is bound to that node: elsewhere it would find nothing. The disk says where
a shard is, so no list of nodes can be wrong.

Nothing here knows what is in the directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ray
import ray.util
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from soardb.cluster.handover import owner_of
from soardb.errors import SoarError, Unavailable

__all__ = [
    "alive_nodes",
    "bound_to",
    "end_actors",
    "holder_of",
    "on_node",
    "remove_copies",
    "shared_strategy",
    "this_node",
]

_PROBE_S = 10.0


def shared_strategy(number: int) -> Any:
    """Of a shard that any node may hold: nodes take turns, of those that are alive."""
    nodes = sorted(alive_nodes())
    return bound_to(nodes[number % len(nodes)])


def holder_of(path: str, number: int | None) -> Any:
    """The node that has a directory. number: of a shard that is to be made: nodes take turns.

    Errors: Unavailable where no node of the cluster has it.
    """
    nodes = sorted(alive_nodes())
    asked = {on_node(node, _is_there, path): node for node in nodes}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_S)
    for reference in ready:
        with contextlib.suppress(RayError):  # a node that has just left has nothing
            if ray.get(reference):
                return bound_to(asked[reference])
    if number is not None:
        return bound_to(nodes[number % len(nodes)])
    raise Unavailable(
        f"expected {path} on one of the {len(nodes)} nodes of the cluster, found it on none; let "
        "the node that has it join again, or restore a snapshot"
    )


def alive_nodes() -> dict[str, str]:
    """{id of a node: its address}, of those that are alive."""
    known: Any = ray.nodes  # untyped
    return {node["NodeID"]: node["NodeManagerAddress"] for node in known() if node["Alive"]}


def end_actors(namespace: str, spared: Collection[str] = ()) -> None:
    """Kill the named actors of a namespace, for good, all but some."""
    listed: Any = ray.util.list_named_actors(all_namespaces=True)
    for actor in sorted(listed, key=lambda actor: str(actor["name"])):  # who makes others first
        if actor["namespace"] == namespace and actor["name"] not in spared:
            with contextlib.suppress(ValueError, RayError):  # gone meanwhile
                ray.kill(ray.get_actor(actor["name"], namespace=namespace), no_restart=True)


def this_node() -> str:
    """The id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def bound_to(node: str) -> Any:
    """Of an actor that lives on one node. Should that be lost, Ray gives it up."""
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def on_node(node: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Begin a function in a process on a node: a reference to what it returns."""
    return _task(function).options(scheduling_strategy=bound_to(node)).remote(*arguments)


@cache  # Ray takes each for a kind of task of its own
def _task(function: Callable[..., Any]) -> Any:
    return ray.remote(num_cpus=0, max_retries=0)(function)


def remove_copies(folder: str, homes: Mapping[str, str]) -> None:
    """Remove what moved away from a folder of shards, and copies that were never finished.

    homes: the token of each shard's actor. A directory goes only where its own OWNER says that the
    present one took it over: then it is all there.
    """
    for path in Path(folder).glob("shard-*"):
        token = homes.get("-".join(path.name.split("-")[:2]))
        with contextlib.suppress(SoarError):
            is_old = token is not None and owner_of(path) == token
            if path.name.endswith(".partial") or (is_old and not path.name.endswith(token or "")):
                shutil.rmtree(path, ignore_errors=True)


def _is_there(path: str) -> bool:
    """Whether a database is there."""
    return os.path.exists(os.path.join(path, "catalog.json"))
