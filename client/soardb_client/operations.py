"""Long work as steps: compaction, tuning and snapshots, started, followed and cancelled.

    client.py, aio.py -> [operations.py] -> calls.py, convert.py

The server does such work beside its calls. Waiting for it is a row of short calls, so that a
connection which breaks meanwhile costs nothing, and progress can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from soardb.arrays import as_int
from soardb.errors import Closed
from soardb.options import MAX_LIMIT, as_settings
from soardb_client import convert
from soardb_client.calls import Call, Held, Steps, as_text
from soardb_client.collections import Known
from soardb_client.failures import Failure, error_of, failure_of_status
from soardb_client.files import Chunks
from soardb_proto.v1 import indexes_pb2, operations_pb2, snapshots_pb2

__all__ = [
    "OperationState",
    "Progress",
    "SnapshotInfo",
    "State",
    "cancel",
    "delete_snapshot",
    "download",
    "list_snapshots",
    "quiet",
    "read_again",
    "start_compact",
    "start_restore",
    "start_snapshot",
    "start_tune",
    "uploads",
    "waited",
]

State = Literal["running", "succeeded", "failed", "cancelled"]
Progress = Callable[[str, float], None]

_STATES: dict[int, State] = {
    operations_pb2.RUNNING: "running",
    operations_pb2.SUCCEEDED: "succeeded",
    operations_pb2.FAILED: "failed",
    operations_pb2.CANCELLED: "cancelled",
}

_LOOK_S = 0.2  # between two reports of progress
_WAIT_S = 20.0  # of one call where nobody wants reports


def quiet(stage: str, share: float) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class OperationState:
    """How an operation was when the server last spoke of it.

    kind    "build", "compact", "tune", "snapshot", "restore" or "evaluate"
    stage   what it does now, of which `share`, 0..1, is done
    result  of a successful one
    """

    name: str
    collection: str
    kind: str
    state: State
    stage: str
    share: float
    started: datetime | None = None
    finished: datetime | None = None
    result: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None


def state_of(message: operations_pb2.Operation) -> OperationState:
    """What a message says of an operation."""
    return OperationState(
        message.name,
        message.collection,
        message.kind,
        _STATES.get(message.state, "running"),
        message.stage,
        message.share,
        message.started.ToDatetime(UTC) if message.HasField("started") else None,
        message.finished.ToDatetime(UTC) if message.HasField("finished") else None,
        convert.result_of(message.result),
        failure_of_status(message.error) if message.HasField("error") else None,
    )


# ---- starting ----


def start_compact(held: Held, retrain: bool) -> Steps[OperationState]:
    """Build the next generation; with retrain, learn partitions anew."""
    held.check_open()
    method = "Build" if retrain else "Compact"
    kind = indexes_pb2.BuildRequest if retrain else indexes_pb2.CompactRequest
    reply = yield Call(  # a second one finds nothing to do
        f"/soardb.v1.Indexes/{method}",
        kind(collection=held.name),
        operations_pb2.Operation,
        "write",
    )
    return state_of(reply)


def start_tune(
    held: Held,
    k: int,
    queries: int,
    nprobes: Sequence[int] | None,
    reranks: Sequence[int] | None,
    seed: int,
) -> Steps[OperationState]:
    """Measure recall and latency."""
    held.check_open()
    request = indexes_pb2.TuneRequest(
        collection=held.name,
        k=as_int(k, "k", 1, MAX_LIMIT - 1),
        queries=as_int(queries, "queries", 1, 100_000),
        nprobes=as_settings(nprobes, "nprobes") or (),
        reranks=as_settings(reranks, "reranks") or (),
        seed=as_int(seed, "seed", 0, 2**63 - 1),
    )
    reply = yield Call("/soardb.v1.Indexes/Tune", request, operations_pb2.Operation, "write")
    return state_of(reply)


def start_snapshot(known: Known, name: str) -> Steps[OperationState]:
    """Make a snapshot in the server's folder; the result is {"snapshot": name, "size": bytes}."""
    known.check_open()
    reply = yield Call(
        "/soardb.v1.Snapshots/Create",
        snapshots_pb2.CreateSnapshotRequest(collection=as_text(name, "the name of a collection")),
        operations_pb2.Operation,
        "write",
        is_repeatable=False,
    )
    return state_of(reply)


def start_restore(known: Known, name: str, source: str, snapshot: str) -> Steps[OperationState]:
    """Make a collection of a snapshot that lies on the server."""
    known.check_open()
    reply = yield Call(
        "/soardb.v1.Snapshots/Restore",
        snapshots_pb2.RestoreSnapshotRequest(collection=name, source=source, snapshot=snapshot),
        operations_pb2.Operation,
        "write",
        is_repeatable=False,
    )
    return state_of(reply)


# ---- following ----


def read_again(operation: OperationState) -> Steps[OperationState]:
    """How it is now."""
    reply = yield Call(
        "/soardb.v1.Operations/Get",
        operations_pb2.GetOperationRequest(collection=operation.collection, name=operation.name),
        operations_pb2.Operation,
    )
    return state_of(reply)


def cancel(operation: OperationState) -> Steps[OperationState]:
    """Ask it to stop."""
    reply = yield Call(
        "/soardb.v1.Operations/Cancel",
        operations_pb2.CancelOperationRequest(collection=operation.collection, name=operation.name),
        operations_pb2.Operation,
        "write",
    )
    return state_of(reply)


def waited(
    operation: OperationState, target: str, progress: Progress = quiet
) -> Steps[OperationState]:
    """How it ended, well. Errors: those of the work, Closed where it was cancelled."""
    seconds = _WAIT_S if progress is quiet else _LOOK_S
    while operation.state == "running":
        progress(operation.stage, operation.share)
        reply = yield Call(
            "/soardb.v1.Operations/Wait",
            operations_pb2.WaitOperationRequest(
                collection=operation.collection, name=operation.name, timeout_s=seconds
            ),
            operations_pb2.Operation,
            least_s=seconds,
        )
        operation = state_of(reply)
    progress(operation.stage, operation.share)
    if operation.state == "cancelled":
        raise Closed(f"{operation.kind} of {operation.collection!r} was cancelled")
    if operation.state == "failed":
        failure = operation.failure or Failure("INTERNAL", "it failed, and did not say why")
        raise error_of(failure, target, operation.kind)
    return operation


# ---- snapshots ----


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot that lies on the server, of a collection, and its size in bytes."""

    name: str
    collection: str
    size: int
    created: datetime | None


def snapshot_of(message: snapshots_pb2.Snapshot) -> SnapshotInfo:
    """What a message says of a snapshot."""
    created = message.created.ToDatetime(UTC) if message.HasField("created") else None
    return SnapshotInfo(message.name, message.collection, message.size, created)


def list_snapshots(known: Known, name: str) -> Steps[list[SnapshotInfo]]:
    """The snapshots of a collection that lie on the server."""
    known.check_open()
    reply: snapshots_pb2.ListSnapshotsReply = yield Call(
        "/soardb.v1.Snapshots/List",
        snapshots_pb2.ListSnapshotsRequest(collection=name),
        snapshots_pb2.ListSnapshotsReply,
    )
    return [snapshot_of(message) for message in reply.snapshots]


def delete_snapshot(known: Known, name: str, snapshot: str) -> Steps[None]:
    """Delete a snapshot that lies on the server."""
    known.check_open()
    yield Call(
        "/soardb.v1.Snapshots/Delete",
        snapshots_pb2.DeleteSnapshotRequest(collection=name, snapshot=snapshot),
        snapshots_pb2.DeleteSnapshotReply,
        "write",
        is_repeatable=False,
    )


def download(operation: OperationState) -> Call:
    """The call that streams a snapshot that was just made."""
    return Call(
        "/soardb.v1.Snapshots/Download",
        snapshots_pb2.DownloadSnapshotRequest(
            collection=operation.collection, snapshot=str(operation.result.get("snapshot", ""))
        ),
        snapshots_pb2.Chunk,
        "long",
        is_repeatable=False,
    )


def uploads(
    chunks: Chunks, progress: Progress
) -> tuple[str, Iterator[snapshots_pb2.UploadSnapshotRequest], type[snapshots_pb2.Snapshot]]:
    """Path, messages and the reply of the call that sends a snapshot."""

    def messages() -> Iterator[snapshots_pb2.UploadSnapshotRequest]:
        yield snapshots_pb2.UploadSnapshotRequest(collection=chunks.source)
        done = 0
        for chunk in chunks.parts:
            yield snapshots_pb2.UploadSnapshotRequest(data=chunk)
            done += len(chunk)
            progress("upload", done / max(chunks.size, 1))

    return "/soardb.v1.Snapshots/Upload", messages(), snapshots_pb2.Snapshot
