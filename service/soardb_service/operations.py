"""Long work as operations: started, followed, waited for, cancelled.

    indexes.py, snapshots.py -> [operations.py] -> threads

An operation lives in the process that writes and ends with it; what it has finished stays to be
asked for an hour, or until a thousand came after it. One collection does one operation at a time;
those that wait for it hold no thread, so other collections go on.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import structlog
from google.rpc import status_pb2

from soardb import deadline
from soardb.errors import Closed, NotFound, TimedOut
from soardb_proto.v1 import operations_pb2 as pb
from soardb_service.convert import status_of
from soardb_service.gate import Overloaded
from soardb_service.rpc import Call, told_of

__all__ = ["Operations", "Progress", "Work"]

_KEPT_S = 3600.0
_MOST = 1_000
_LONGEST_WAIT_S = 60.0
_THREADS = 2

_log = structlog.get_logger("soardb_service")

Progress = Callable[[str, float], None]
Work = Callable[[Progress, threading.Event], dict[str, Any]]


@dataclass(slots=True)
class _Operation:
    name: str
    collection: str
    kind: str
    work: Work | None  # None once it is done, as it holds what it works on
    started: float = field(default_factory=time.time)
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    stage: str = "waiting"
    share: float = 0.0
    state: Any = pb.RUNNING
    finished: float | None = None
    error: status_pb2.Status | None = None  # not the exception, which holds what it came through
    result: dict[str, Any] | None = None

    def message(self) -> pb.Operation:
        """As it is now."""
        out = pb.Operation(
            name=self.name,
            collection=self.collection,
            kind=self.kind,
            state=self.state,
            stage=self.stage,
            share=self.share,
        )
        out.started.FromMilliseconds(int(self.started * 1e3))
        if self.finished is not None:
            out.finished.FromMilliseconds(int(self.finished * 1e3))
        if self.error is not None:
            out.error.CopyFrom(self.error)
        if self.result is not None:
            out.result = json.dumps(self.result).encode()
        return out


class Operations:
    """The operations of one process, and the proto service Operations.

    a_wait(): a permit to wait, as a wait holds a thread.
    """

    def __init__(self, a_wait: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._a_wait = a_wait
        self._all: dict[str, _Operation] = {}
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[_Operation]] = {}  # of each collection that is worked on
        self._is_closed = False
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="soardb-operation")

    def start(self, collection: str, kind: str, work: Work) -> pb.Operation:
        """Start work(progress, stop), whose answer is the result. Errors: Overloaded."""
        operation = _Operation(f"op-{secrets.token_hex(8)}", collection, kind, work)
        with self._lock:
            self._forget()
            if len(self._all) >= _MOST:
                raise Overloaded(
                    f"expected at most {_MOST} operations under way, got more; wait for some", 60.0
                )
            self._all[operation.name] = operation
            if collection in self._waiting:
                self._waiting[collection].append(operation)
            else:
                self._waiting[collection] = deque()
                self._pool.submit(self._run, operation)
        return operation.message()

    def _forget(self) -> None:
        now = time.time()
        old = [n for n, o in self._all.items() if o.finished and now - o.finished > _KEPT_S]
        if len(self._all) - len(old) >= _MOST:  # the oldest first, as they were started
            old = [n for n, o in self._all.items() if o.finished][: len(old) + _MOST // 10]
        for name in old:
            del self._all[name]

    def _run(self, operation: _Operation) -> None:
        """Do it, and let the next one of its collection begin."""
        self._do(operation)
        with self._lock:
            waiting = self._waiting[operation.collection]
            if waiting and not self._is_closed:
                self._pool.submit(self._run, waiting.popleft())
            elif not waiting:
                del self._waiting[operation.collection]

    def _do(self, operation: _Operation) -> None:
        def progress(stage: str, share: float) -> None:
            operation.stage, operation.share = stage, min(1.0, max(0.0, share))
            if operation.stop.is_set():
                raise Closed("the operation was cancelled")

        assert operation.work is not None
        try:
            progress("started", 0.0)
            result = operation.work(progress, operation.stop)
            operation.result, operation.state, operation.share = result, pb.SUCCEEDED, 1.0
            operation.stage = "done"
        except BaseException as error:  # noqa: BLE001  it is told to whoever asks
            is_cancelled = operation.stop.is_set() and isinstance(error, Closed | TimedOut)
            operation.state = pb.CANCELLED if is_cancelled else pb.FAILED
            if not is_cancelled:
                told = told_of(error, operation.name, operation.kind)
                operation.error = status_of(told)[1]
        finally:
            operation.work = None
            operation.finished = time.time()
            operation.done.set()
            _log.info(
                "operation",
                kind=operation.kind,
                collection=operation.collection,
                operation=operation.name,
                state=pb.OperationState.Name(operation.state),
                s=round(operation.finished - operation.started, 3),
            )

    def _find(self, request: Any) -> _Operation:
        with self._lock:
            found = self._all.get(request.name)
        if found is None or found.collection != request.collection:
            raise NotFound(
                f"expected an operation of {request.collection!r}, there is no {request.name!r}; "
                "they are forgotten after an hour and when the server ends"
            )
        return found

    def close(self) -> None:
        """Cancel what runs and what waits, and wait until it has stopped."""
        with self._lock:
            self._is_closed = True
            begun = list(self._all.values())
        for operation in begun:
            operation.stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for operation in begun:
            if not operation.done.is_set():  # it never began
                self._do(operation)

    # ---- the proto service ----

    def Get(self, request: pb.GetOperationRequest, call: Call) -> pb.Operation:  # noqa: N802
        """How it is."""
        return self._find(request).message()

    def List(  # noqa: N802
        self, request: pb.ListOperationsRequest, call: Call
    ) -> pb.ListOperationsReply:
        """Those of a collection, the latest last."""
        with self._lock:
            found = [o for o in self._all.values() if o.collection == request.collection]
        return pb.ListOperationsReply(operations=[o.message() for o in found])

    def Wait(self, request: pb.WaitOperationRequest, call: Call) -> pb.Operation:  # noqa: N802
        """How it is when it is done, or when the time is up."""
        operation = self._find(request)
        end = time.monotonic() + min(max(request.timeout_s, 0.0), _LONGEST_WAIT_S)
        if not request.timeout_s > 0 or operation.done.is_set():  # a NaN too
            return operation.message()
        with self._a_wait():
            while not operation.done.wait(min(0.05, max(0.0, end - time.monotonic()))):
                deadline.check()
                if time.monotonic() >= end:
                    break
        return operation.message()

    def Cancel(self, request: pb.CancelOperationRequest, call: Call) -> pb.Operation:  # noqa: N802
        """Ask it to stop."""
        operation = self._find(request)
        operation.stop.set()
        return operation.message()
