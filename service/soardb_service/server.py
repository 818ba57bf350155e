"""One serving process, from start to drained end.

    cli.py, readers.py -> [server.py] -> rpc.py, rest.py, readers.py, the handlers

It opens the database, listens, says that it is ready, and waits for SIGTERM or SIGINT. Then it
takes no more calls, lets those under way finish for as long as `drain_s` says, cancels operations,
and closes the database. A second signal ends it at once; nothing acknowledged is lost by that.

The process that writes may have reading ones beside it, on the same port; see readers.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import structlog

import soardb
from soardb.batching import Batcher
from soardb.database import Database
from soardb.errors import Unavailable
from soardb.storage.sqlite import translated
from soardb_service.access import FILES
from soardb_service.admin import Admin
from soardb_service.agent import Agent
from soardb_service.collections import Collections
from soardb_service.config import ServerConfig
from soardb_service.convert import hide
from soardb_service.gate import Gate
from soardb_service.health import Health
from soardb_service.indexes import Indexes
from soardb_service.keys import KeyFile
from soardb_service.models import Models
from soardb_service.observe import Metrics, Traces
from soardb_service.operations import Operations
from soardb_service.patience import Patience
from soardb_service.points import Points
from soardb_service.readers import Forwarder, Readers
from soardb_service.rpc import Door, GrpcHandlers, handlers_of
from soardb_service.snapshots import Snapshots

__all__ = ["Server", "serve"]

_log = structlog.get_logger("soardb_service")

_LONGEST_BATCH = 256


class Server:
    """A serving process. reads_beside: the socket of the writing process, for a reading one."""

    def __init__(self, config: ServerConfig, reads_beside: str | None = None) -> None:
        self.config = config
        keys = KeyFile(config.keys_path)
        config.check_exposure(bool(keys.keys()))
        config.check_tls()
        config.check_cluster()
        is_shared = config.readers > 0 or reads_beside is not None
        self._metrics = Metrics(is_shared)
        self._traces = Traces(config.traces)
        hide(config.directory.resolve())
        hide(config.place)
        self.database = _connected(config, read_only=reads_beside is not None)
        limits = config.limits
        gate = Gate(keys, require_key=config.require_key, rate=config.rate)
        batcher: Batcher[Any, Any] | None = None
        if config.batching:
            batcher = Batcher(config.batch_slots, _LONGEST_BATCH)
        self._operations = Operations(lambda: self.door.a_stream())
        models = Models(
            self.database,
            self._operations,
            limits,
            config.directory.resolve(),
            max_bytes=config.max_model_bytes,
            loaded=config.models_loaded,
        )
        services: dict[str, object] = {
            "Collections": Collections(self.database),
            "Points": Points(self.database, limits, self._metrics, batcher),
            "Indexes": Indexes(self.database, self._operations),
            "Operations": self._operations,
            "Snapshots": Snapshots(
                self.database,
                self._operations,
                None if "://" in config.place else Path(config.place) / "snapshots",
            ),
            "Models": models,
            "Agent": Agent(self.database, models, config.llm),
            "Admin": Admin(self.database, limits, lambda: self.door.in_flight),
        }
        self.passes = handlers_of(services)
        self.door = Door(
            gate,
            self.database.real_name,
            self._metrics,
            self._traces,
            default_timeout_s=config.default_timeout_s,
            streams=config.max_streams,
            slow_ms=config.slow_ms,
            log_calls=config.log_calls,
        )
        self._gate = gate
        self._forwarder = None if reads_beside is None else Forwarder(reads_beside, limits)
        self._health = Health(
            gate, FILES, has_reflection=config.reflection, a_stream=self.door.a_stream
        )
        self._grpc = self._make_grpc()
        self._readers: Readers | None = None
        self._rest: Any = None
        self._ends: list[Callable[[], None]] = []
        self.port = 0
        self.rest_port: int | None = None
        self.metrics_port: int | None = None

    # ---- listening ----

    def _make_grpc(self) -> grpc.Server:
        config = self.config
        most = config.max_message_bytes
        # Streams and waits hold a thread each, beside those for calls.
        workers = config.threads + config.max_streams
        options = [
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", most),
            ("grpc.max_metadata_size", 16 * 2**10),
            ("grpc.max_concurrent_streams", max(100, workers + config.waiting)),
            ("grpc.max_connection_idle_ms", int(config.idle_s * 1e3)),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 5),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 1 if config.readers or self._forwarder else 0),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_allowed_incoming_connections", max(64, _files_allowed() // 2)),
        ]
        server = grpc.server(
            ThreadPoolExecutor(workers, thread_name_prefix="soardb-call"),
            handlers=[
                GrpcHandlers(
                    self.door,
                    self.passes,
                    self._forwarder,
                    Patience(config.stall_s, crowd=max(1, workers // 2)),
                    (
                        ThreadPoolExecutor(config.search_threads, "soardb-search"),
                        Patience(config.stall_s, crowd=max(1, config.search_threads // 2)),
                    ),
                ),
                *self._health.handlers(),
            ],
            options=options,
            maximum_concurrent_rpcs=workers + config.waiting,
        )
        return server

    def _credentials(self) -> grpc.ServerCredentials | None:
        config = self.config
        if config.tls_certificate is None or config.tls_key is None:
            return None
        roots = None if config.tls_client_ca is None else config.tls_client_ca.read_bytes()
        return grpc.ssl_server_credentials(
            [(config.tls_key.read_bytes(), config.tls_certificate.read_bytes())],
            root_certificates=roots,
            require_client_auth=roots is not None,
        )

    def listen(self, address: str) -> int:
        """Listen on an address; returns the port. Errors: Unavailable."""
        credentials = self._credentials()
        try:
            if credentials is None or address.startswith("unix:"):
                return int(self._grpc.add_insecure_port(address))
            return int(self._grpc.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise Unavailable(
                f"expected a free port of this machine at {address}: {error}; is another server "
                "running there?"
            ) from None

    def start(self) -> None:
        """Listen and answer; reading processes, REST and metrics too, as the settings say."""
        config = self.config
        self.port = self.listen(config.address)
        if config.readers:
            self._readers = Readers(config, self.port)
            self.listen(self._readers.socket)
        self._grpc.start()
        if self._readers is not None:
            self._readers.start()
            self._ends.append(self._readers.stop)
        if self._forwarder is None:
            self._start_rest()
            if config.metrics_port >= 0:
                self.metrics_port, stop = self._metrics.serve(config.metrics_port)
                self._ends.append(stop)
        self._health.set_serving(True)

    def _start_rest(self) -> None:
        if self.config.rest_port < 0 or self.config.host.startswith("unix:"):
            return
        from soardb_service.rest import RestServer

        self._rest = RestServer(self.config, self.door, self.passes, self._gate, self._health)
        self.rest_port = self._rest.start()

    # ---- ending ----

    def stop(self) -> None:
        """Drain and close. Idempotent."""
        self._health.set_serving(False)
        if self._rest is not None:
            self._rest.stop(self.config.drain_s)
            self._rest = None
        if self._readers is not None:
            self._readers.drain()
        self._grpc.stop(self.config.drain_s).wait()
        for end in reversed(self._ends):
            end()
        self._ends.clear()
        if self._forwarder is not None:
            self._forwarder.close()
        self._operations.close()
        self.database.close()
        self._traces.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _connected(config: ServerConfig, *, read_only: bool) -> Database:
    """The database of the directory, or the cluster that the settings name."""
    limits: dict[str, Any] = {
        "memory_limit": config.memory_limit,
        "allow_network": config.allow_network,
    }
    if config.ray is None:
        return soardb.connect(config.place, read_only=read_only, **limits)
    with translated(config.directory):
        config.directory.mkdir(parents=True, exist_ok=True)
    if config.data is not None:
        hide(config.data)
    return soardb.connect(
        config.ray, storage=config.place, shards=config.shards, data=config.data, **limits
    )


def _files_allowed() -> int:
    """How many files and sockets this process may have open, raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def serve(config: ServerConfig, reads_beside: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Errors: those of opening and listening."""
    over = threading.Event()

    def end(number: int, frame: Any) -> None:
        if over.is_set():
            _log.warning("ended by a second signal", signal=signal.Signals(number).name)
            os._exit(128 + number)
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server = Server(config, reads_beside)
    try:
        server.start()
        _tell(server)
        over.wait()
        _log.info("draining", seconds=config.drain_s)
    finally:
        server.stop()
    _log.info("ended")


def _tell(server: Server) -> None:
    """Say that the server answers, in the log and in the ready file."""
    config = server.config
    facts = {
        "pid": os.getpid(),
        "host": config.host,
        "port": server.port,
        "rest_port": server.rest_port,
        "metrics_port": server.metrics_port,
    }
    _log.info(
        "serving",
        directory=str(config.directory),
        tls=config.tls_certificate is not None,
        keys=server._gate.is_key_required,
        readers=config.readers,
        **facts,
    )
    if not server._gate.is_key_required and not config.is_loopback:
        _log.warning("no key is asked for beyond loopback, as --insecure allows", host=config.host)
    if config.ready_file is not None:
        temporary = Path(f"{config.ready_file}.part")
        temporary.write_text(json.dumps(facts), "utf-8")
        temporary.rename(config.ready_file)
