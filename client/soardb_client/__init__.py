"""The client: how a program speaks to a soardb server.

    a program, soardb.connect("grpc://...") -> [soardb_client] -> soardb_proto, soardb's vocabulary

    import soardb

    db = soardb.connect("grpc://localhost:7600")
    words = db.get_collection("words")
    hits = words.search(query, limit=10, filter=soardb.F("lang") == "en")

client.py   the blocking client and collection: the methods of an embedded database
aio.py      the same with await
target.py   addresses, keys, certificates
collections.py, points.py, operations.py, ingest.py, models.py, agent.py   what the methods send,
            and make of the answer
calls.py    what such a method is
retry.py    when a call is tried again
failures.py a status as an error of soardb
convert.py  values and messages
files.py    snapshots and models as local files

Errors, filters, points and results are soardb's own: the client imports its vocabulary and loads
neither kernels nor storage.
"""

from soardb_client.agent import AgentAnswer, AgentStep, FoundPassage, Source
from soardb_client.aio import (
    AsyncAsking,
    AsyncClient,
    AsyncCollection,
    AsyncGeneration,
    AsyncModels,
    AsyncOperation,
)
from soardb_client.client import Asking, Client, Collection, Generation, Models, Operation
from soardb_client.collections import Grant, ServerInfo
from soardb_client.models import ModelInfo, ModelPair, Written
from soardb_client.operations import OperationState, SnapshotInfo
from soardb_client.points import PointBatch

__all__ = [
    "AgentAnswer",
    "AgentStep",
    "Asking",
    "AsyncAsking",
    "AsyncClient",
    "AsyncCollection",
    "AsyncGeneration",
    "AsyncModels",
    "AsyncOperation",
    "Client",
    "Collection",
    "FoundPassage",
    "Generation",
    "Grant",
    "ModelInfo",
    "ModelPair",
    "Models",
    "Operation",
    "OperationState",
    "PointBatch",
    "ServerInfo",
    "SnapshotInfo",
    "Source",
    "Written",
]
