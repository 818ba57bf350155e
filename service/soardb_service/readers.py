"""Reading processes beside the writing one, on the same port.

    server.py -> [readers.py] -> `python -m soardb_service` as child processes

The kernel spreads connections over all processes that listen on the port (SO_REUSEPORT), and each
maps the same generation of the index. A reading process answers reads by itself: before each it
takes over what the writing process has committed, so it sees every write that was acknowledged at
"fsync" or "logged" before the read came. What only the writing process can do, it passes on to it,
over a socket in a folder that nobody else can enter.

A reading process that dies is started again; its clients connect anew to another. One that has
lost its parent ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import structlog

from soardb_service.config import ServerConfig
from soardb_service.limits import Limits
from soardb_service.rpc import Pass

__all__ = ["Forwarder", "Readers"]

_log = structlog.get_logger("soardb_service")

_LOOK_S = 0.5
_LONGEST_PAUSE_S = 10.0
_NO_LIMIT_S = 1e8  # grpc says of a call without a deadline that it has billions of years
_PASSED_ON = {"authorization", "x-api-key", "traceparent", "tracestate"}


class Readers:
    """The child processes: started, watched, started again, ended."""

    def __init__(self, config: ServerConfig, port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="soardb-")
        self.socket = f"unix:{self._folder.name}/writer"
        self._config = config
        self._port = port
        self._children: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="soardb-readers", daemon=True)

    def start(self) -> None:
        """Start all of them, and the thread that watches them."""
        self._children = [self._spawn() for _ in range(self._config.readers)]
        self._watcher.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = self._config.model_dump(mode="json", exclude_none=True) | {
            "port": self._port,
            "readers": 0,
            "ready_file": None,
        }
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "soardb_service.reader"],
            stdin=subprocess.PIPE,
        )
        assert child.stdin is not None
        child.stdin.write(
            json.dumps(
                {"settings": settings, "writer": self.socket, "parent": os.getpid()}
            ).encode()
        )
        child.stdin.close()
        return child

    def _watch(self) -> None:
        pause = _LOOK_S
        while not self._over.wait(pause):
            pause = _LOOK_S
            for i, child in enumerate(self._children):
                if child.poll() is None:
                    continue
                if self._over.is_set():
                    return
                _log.warning("a reading process ended; starting another", status=child.returncode)
                self._children[i] = self._spawn()
                pause = min(_LONGEST_PAUSE_S, 2 * pause)

    @property
    def pids(self) -> list[int]:
        """Process ids of the children."""
        return [child.pid for child in self._children]

    def drain(self) -> None:
        """Ask all of them to take no more calls and to end."""
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Wait for them, and end those that take too long."""
        self.drain()
        end = time.monotonic() + self._config.drain_s + 5
        for child in self._children:
            try:
                child.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with contextlib.suppress(OSError):
            self._folder.cleanup()


class Forwarder:
    """Passes a call on to the writing process, as bytes: it asks for the key there again."""

    def __init__(self, socket: str, limits: Limits) -> None:
        most = limits.message_bytes
        self._channel = grpc.insecure_channel(
            socket,
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", most),
            ],
        )
        self._methods: dict[str, Any] = {}

    def __call__(self, way: Pass, data: Any, context: grpc.ServicerContext) -> Any:
        """The answer of the writing process: bytes, or an iterator of them."""
        path = way.rule.path
        if path not in self._methods:
            kind = (
                "stream" if way.takes_stream else "unary",
                "stream" if way.gives_stream else "unary",
            )
            self._methods[path] = getattr(self._channel, "_".join(kind))(path)
        headers = [(k, v) for k, v in context.invocation_metadata() if k in _PASSED_ON]
        seconds: float | None = context.time_remaining()
        if seconds is None or seconds > _NO_LIMIT_S:
            seconds = None
        if way.gives_stream:
            return self._each(self._methods[path](data, seconds, headers), context)
        return self._one(self._methods[path].future(data, seconds, headers), context)

    def _one(self, call: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(call.cancel)
        try:
            return call.result()
        except grpc.RpcError as error:
            _pass_back(context, error)
        except grpc.FutureCancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "the caller went away")

    def _each(self, answer: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(answer.cancel)
        try:
            yield from answer
        except grpc.RpcError as error:
            _pass_back(context, error)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def _pass_back(context: grpc.ServicerContext, error: Any) -> Any:
    """End the call as the writing process ended it; does not return."""
    context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
    details = error.details() or ""
    if error.code() == grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        details = f"the writing process does not answer: {details}"
    context.abort(error.code(), details)
