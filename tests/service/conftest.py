"""A real server as a process, and databases that can be asked the same: embedded and served.

    test_*.py of this folder -> [conftest.py] -> soardb_service (as a process), soardb_client

The asyncio client is driven from the tests through `Facade`, which runs its loop in a thread and
waits for each answer, so that one test can be written for all kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb_client import AsyncClient, Client
from soardb_service.convert import discreet

START_S = 90.0


class Served:
    """`soardb serve` of a directory on a free port, as a process. A context manager."""

    def __init__(self, folder: Path, *flags: str, port: int = 0) -> None:
        self.folder = folder
        self._flags = flags
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """Where it answers."""
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> Served:
        """Start it, again on the same port, and wait until it answers."""
        ready = self.folder.parent / f"{self.folder.name}.ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "soardb_service", str(self.folder)]
        command += ["--port", str(self.port), "--rest-port", "-1", "--ready-file", str(ready)]
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen([*command, *self._flags], stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while not ready.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)
        self.port = int(json.loads(ready.read_text("utf-8"))["port"])
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for that."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)

    def log(self) -> str:
        """What it wrote."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text("utf-8")

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Facade:
    """An object of the asyncio client that answers at once: its loop runs in another thread."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._called(value) if callable(value) else self._answered(value)

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return self._answered(method(*arguments, **options))

        return call

    def _answered(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = asyncio.run_coroutine_threadsafe(_await(value), self._loop).result(120)
        if inspect.isasyncgen(value):
            return self._each(value)
        is_ours = type(value).__module__ == "soardb_client.aio"
        return Facade(value, self._loop) if is_ours else value

    def _each(self, parts: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._answered(anext(parts))
            except StopAsyncIteration:
                return

    def __iter__(self) -> Iterator[Any]:
        return self._each(self._inner)

    def __len__(self) -> int:
        return int(self.count())

    def __repr__(self) -> str:
        return f"Facade({self._inner!r})"


async def _await(value: Any) -> Any:
    return await value


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it as they found it."""
    with Served(tmp_path_factory.mktemp("served") / "db") as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "aio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client asks: the blocking one, or the asyncio one."""
    return str(request.param)


@contextlib.contextmanager
def opened(target: str, kind: str, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """A client of a kind, which answers at once."""
    if kind == "grpc":
        with Client(target) as client:
            yield client
        return
    facade = Facade(AsyncClient(target), loop)
    yield facade
    facade.close()


@pytest.fixture
def remote(served: Served, kind: str, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """An empty served database."""
    with Client(served.target) as cleaner:
        for name in cleaner.list_collections():
            cleaner.drop_collection(name)
    with opened(served.target, kind, loop) as client:
        yield client


@dataclasses.dataclass
class Pair:
    """An embedded database and a served one, both empty at first."""

    embedded: Any
    remote: Any
    places: list[str]

    def same(self, ask: Callable[[Any], Any]) -> Any:
        """What a call gives, which must be the same of both: an answer or an error."""
        expected, got = self._answer(ask, self.embedded), self._answer(ask, self.remote)
        assert plain(got) == plain(expected)
        return expected

    def _answer(self, ask: Callable[[Any], Any], database: Any) -> Any:
        """What a call gives, or the error that it raises, which then names no place."""
        try:
            return ask(database)
        except Exception as error:  # noqa: BLE001  it is what is compared
            text = discreet(str(error))  # a server says no names but the caller's own
            for place in self.places:
                text = text.replace(place, "PLACE")
            return type(error)(text)

    def refuses(self, kind: type[Exception], ask: Callable[[Any], Any]) -> str:
        """The message of an error of this class, which must be the same of both."""
        error = self.same(ask)
        assert type(error) is kind, error
        return str(error)


@pytest.fixture
def pair(tmp_path: Path, remote: Any, served: Served) -> Iterator[Pair]:
    """Two empty databases that are to answer alike."""
    with soardb.connect(tmp_path / "embedded") as embedded:
        yield Pair(embedded, remote, [str(embedded.path), str(served.folder), served.target])


def plain(value: Any) -> Any:
    """A value that == compares by contents: arrays, results, errors, handles."""
    if isinstance(value, np.ndarray):
        # Of no ids at all nobody can say the kind.
        return value.tolist() if not value.size else (str(value.dtype), value.tolist())
    if isinstance(value, soardb.Plan):
        return plain(dataclasses.astuple(dataclasses.replace(value, stages={})))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return type(value).__name__, fields
    if isinstance(value, Exception):
        return type(value).__name__, str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, soardb.Collection | Facade) or type(value).__name__ == "Collection":
        return "collection", value.name, value.d, value.metric, value.schema
    return value
