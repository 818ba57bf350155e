"""On which node a shard lives: on any that reaches its directory.

    registrar.py -> [places.py] -> Ray

Where shards lie in a folder that all nodes share, Ray spreads them and moves one off a node that is
lost. Where each node has a disk of its own, nodes are asked who has the directory, and the shard is
bound to that node: elsewhere it would find nothing. The disk says where a shard is, so no list of
nodes can be wrong.

Nothing here knows what is in the directory.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from soardb.errors import Unavailable

__all__ = ["holder_of", "shared_strategy"]

_PROBE_S = 10.0


def shared_strategy() -> Any:
    """Of a shard that any node may hold."""
    return "SPREAD"


def holder_of(path: str, number: int | None) -> Any:
    """The node that has a directory. number: of a shard that is to be made: nodes take turns.

    Errors: Unavailable where no node of the cluster has it.
    """
    known: Any = ray.nodes  # untyped
    nodes = sorted(node["NodeID"] for node in known() if node["Alive"])
    probe = ray.remote(num_cpus=0, max_retries=0)(_is_there)
    asked = {probe.options(scheduling_strategy=_on(node)).remote(path): node for node in nodes}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_S)
    for reference in ready:
        with contextlib.suppress(RayError):  # a node that has just left has nothing
            if ray.get(reference):
                return _on(asked[reference])
    if number is not None:
        return _on(nodes[number % len(nodes)])
    raise Unavailable(
        f"expected {path} on one of the {len(nodes)} nodes of the cluster, found it on none; let "
        "the node that has it join again, or restore a snapshot"
    )


def _on(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _is_there(path: str) -> bool:
    """Whether a database is there."""
    return os.path.exists(os.path.join(path, "catalog.json"))
