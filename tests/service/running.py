"""A server in a process of its own, for tests: started, asked, looked at, ended.

    test_*.py, attacks.py -> [running.py] -> python -m soardb_service

`Running(folder)` is a context manager. It chooses free ports, waits until the server says that it
is ready, keeps what the server writes to standard error, and tells its memory, threads and files.
Calls are made by method name and message, without a client library, so that a test can also send
what no client would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from soardb_service.access import Rule, rules
from soardb_service.keys import KeyFile, as_grant

__all__ = ["METHODS", "Running", "added_key", "code_of", "metadata_of", "outcome"]

METHODS: dict[str, Rule] = {rule.path.partition(".v1.")[2]: rule for rule in rules()}
"""{"Points/Count": its rule} for every method of the descriptors."""

_START_S = 60.0


def added_key(folder: Path, *grants: str, expires: int | None = None) -> str:
    """The text of a new key of the server's directory."""
    granted = [as_grant(text) for text in grants]
    return KeyFile(folder / ".keys.json").add("test", granted, expires)[1]


def metadata_of(key: str | None) -> list[tuple[str, str]]:
    """The headers that bring a key."""
    return [] if key is None else [("authorization", f"Bearer {key}")]


class Running:
    """A server over a directory. arguments: further flags. key: what calls bring unless told."""

    def __init__(self, folder: Path, *arguments: str, key: str | None = None) -> None:
        self.folder = folder
        self.key = key
        self._arguments = arguments
        self._ready = folder.parent / f"{folder.name}.ready"
        self._log = folder.parent / f"{folder.name}.log"
        self._channels: list[Any] = []
        self._channel: Any = None

    def __enter__(self) -> Running:
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "soardb_service", str(self.folder)),
                    *("--port", "0", "--rest-port", "0", "--ready-file", str(self._ready)),
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _START_S
        while not self._ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the server did not start: {self.log()}")
            time.sleep(0.02)
        facts = json.loads(self._ready.read_text("utf-8"))
        self.port: int = facts["port"]
        self.rest_port: int = facts["rest_port"]
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()
        self.stop()

    def stop(self) -> int:
        """End it as a user would; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    # ---- what it is like ----

    @property
    def address(self) -> str:
        """Of gRPC."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of REST."""
        return f"http://127.0.0.1:{self.rest_port}"

    def log(self) -> str:
        """All that it wrote to standard error so far."""
        return self._log.read_text("utf-8", "replace")

    @property
    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return int(psutil.Process(self.process.pid).num_threads())

    @property
    def files(self) -> int:
        """How many files and sockets it holds open."""
        return int(psutil.Process(self.process.pid).num_fds())

    # ---- asking it ----

    def channel(self, *options: tuple[str, Any]) -> Any:
        """A connection of its own, a grpc.Channel without the types of generated stubs."""
        channel: Any = grpc.insecure_channel(
            self.address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                *options,
            ],
        )
        self._channels.append(channel)
        return channel

    def call(
        self,
        method: str,
        request: Message | bytes | Iterable[Message | bytes] = b"",
        *,
        key: str | None = "",
        timeout: float = 30.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        channel: Any = None,
        **options: Any,
    ) -> Any:
        """The reply of Service/Method, a list of them for a stream. Errors: grpc.RpcError.

        key: "" is the one of this object, None none. metadata: in the place of a key.
        """
        if self._channel is None:
            self._channel = self.channel()
        rule = METHODS[method]
        reply_type = GetMessageClass(rule.method.output_type)
        takes, gives = rule.method.client_streaming, rule.method.server_streaming
        kind = f"{'stream' if takes else 'unary'}_{'stream' if gives else 'unary'}"
        if metadata is None:
            metadata = metadata_of(self.key if key == "" else key)
        ask = getattr(channel or self._channel, kind)(rule.path)
        sent: Any = (
            map(_bytes_of, [request] if isinstance(request, bytes | Message) else request)
            if takes
            else _bytes_of(request)
        )
        answer = ask(sent, timeout=timeout, metadata=metadata, **options)
        if gives:
            return [reply_type.FromString(part) for part in answer]
        return reply_type.FromString(answer)


def _bytes_of(request: Any) -> bytes:
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())


def code_of(error: grpc.RpcError) -> str:
    """The name of the status of a failed call."""
    return str(error.code().name)


def outcome(ask: Any, *args: Any, **options: Any) -> tuple[str, str]:
    """(name of the status, its message) of a call; ("OK", "") where it was answered."""
    try:
        answer = ask(*args, **options)
        if isinstance(answer, Iterator):
            list(answer)
    except grpc.RpcError as error:
        return code_of(error), str(error.details())
    return "OK", ""
