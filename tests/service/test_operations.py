"""Operations: followed, waited for, cancelled; one at a time a collection.

    soardb_service/operations.py -> [test_operations.py]

Work is held by events here, so nothing depends on how fast it runs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from soardb.errors import InvalidArgument, NotFound
from soardb_proto.v1 import operations_pb2 as pb
from soardb_service.operations import Operations, Progress


@pytest.fixture
def operations() -> Iterator[Operations]:
    made = Operations()
    yield made
    made.close()


def wait(operations: Operations, name: str, collection: str = "words") -> pb.Operation:
    request = pb.WaitOperationRequest(collection=collection, name=name, timeout_s=10)
    return operations.Wait(request, None)  # type: ignore[arg-type]


def cancel(operations: Operations, name: str) -> pb.Operation:
    request = pb.CancelOperationRequest(collection="words", name=name)
    return operations.Cancel(request, None)  # type: ignore[arg-type]


def until_stopped(progress: Progress, stop: threading.Event) -> dict[str, Any]:
    """Work that goes on until it is cancelled."""
    while True:
        progress("working", 0.5)
        stop.wait(0.01)


class TestEnds:
    def test_a_result_is_kept_to_be_asked_for(self, operations: Operations) -> None:
        """The caller who started it may be another than the one who asks."""
        started = operations.start("words", "build", lambda progress, stop: {"points": 7})
        done = wait(operations, started.name)
        assert done.state == pb.SUCCEEDED
        assert json.loads(done.result) == {"points": 7}
        assert done.share == 1.0
        assert done.finished.ToNanoseconds() >= done.started.ToNanoseconds()

    def test_an_error_is_told_with_its_reason(self, operations: Operations) -> None:
        """As the call itself would have told it."""

        def fail(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            raise InvalidArgument("expected something else")

        done = wait(operations, operations.start("words", "tune", fail).name)
        assert done.state == pb.FAILED
        assert done.error.message == "expected something else"

    def test_a_mistake_of_ours_tells_nothing_but_its_id(self, operations: Operations) -> None:
        """What went wrong inside is for the log."""

        def fail(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            raise ZeroDivisionError("secret of the server")

        done = wait(operations, operations.start("words", "tune", fail).name)
        assert done.state == pb.FAILED
        assert "secret" not in done.error.message
        assert done.name in done.error.message

    def test_cancelling_ends_it(self, operations: Operations) -> None:
        """At its next sign of progress."""
        started = operations.start("words", "build", until_stopped)
        cancel(operations, started.name)
        assert wait(operations, started.name).state == pb.CANCELLED

    def test_one_that_waits_its_turn_can_be_cancelled(self, operations: Operations) -> None:
        """It never begins."""
        first = operations.start("words", "build", until_stopped)
        begun = threading.Event()

        def note(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            begun.set()
            return {}

        second = operations.start("words", "compact", note)
        cancel(operations, second.name)
        cancel(operations, first.name)
        assert wait(operations, second.name).state == pb.CANCELLED
        assert not begun.is_set()

    def test_closing_cancels_what_runs(self) -> None:
        """A server that drains does not wait for a build of an hour."""
        operations = Operations()
        started = operations.start("words", "build", until_stopped)
        behind = operations.start("words", "compact", lambda progress, stop: {})
        operations.close()
        assert wait(operations, started.name).state == pb.CANCELLED
        assert wait(operations, behind.name).state == pb.CANCELLED


class TestTurns:
    def test_operations_of_one_collection_follow_each_other(self, operations: Operations) -> None:
        """Two builds of one index at once would do the work twice."""
        at_once, most = [0], [0]
        lock = threading.Lock()

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            stop.wait(0.02)
            with lock:
                at_once[0] -= 1
            return {}

        names = [operations.start("words", "compact", work).name for _ in range(4)]
        assert all(wait(operations, name).state == pb.SUCCEEDED for name in names)
        assert most[0] == 1

    def test_other_collections_do_not_wait_for_them(self, operations: Operations) -> None:
        """However many wait for one that takes long."""
        long = operations.start("words", "build", until_stopped)
        behind = [operations.start("words", "compact", lambda p, s: {}).name for _ in range(5)]
        other = operations.start("other", "compact", lambda p, s: {"points": 1})
        assert wait(operations, other.name, "other").state == pb.SUCCEEDED
        assert not [n for n in behind if operations._all[n].done.is_set()]
        cancel(operations, long.name)
        assert all(wait(operations, name).state == pb.SUCCEEDED for name in behind)


class TestFinding:
    def test_an_operation_belongs_to_its_collection(self, operations: Operations) -> None:
        """A key for another collection cannot follow or cancel it, even if it knows the name."""
        started = operations.start("words", "build", lambda progress, stop: {})
        with pytest.raises(NotFound, match="'other'"):
            wait(operations, started.name, "other")

    def test_list_has_those_of_one_collection(self, operations: Operations) -> None:
        """In the order of their start."""
        names = [operations.start("words", "tune", lambda p, s: {}).name for _ in range(3)]
        operations.start("other", "tune", lambda p, s: {})
        request = pb.ListOperationsRequest(collection="words")
        found = operations.List(request, None)  # type: ignore[arg-type]
        assert [operation.name for operation in found.operations] == names

    def test_waiting_ends_when_the_time_is_up(self, operations: Operations) -> None:
        """With the operation as it is then."""
        started = operations.start("words", "build", until_stopped)
        request = pb.WaitOperationRequest(collection="words", name=started.name, timeout_s=0.02)
        assert operations.Wait(request, None).state == pb.RUNNING  # type: ignore[arg-type]
