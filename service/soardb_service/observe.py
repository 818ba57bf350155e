"""What the server says of itself: metrics, traces and logs.

    rpc.py, rest.py, server.py -> [observe.py] -> prometheus_client, opentelemetry, structlog

Metrics are counted always and shown only on a port of their own. Traces need the extra `tracing`
and an endpoint. Logs go to standard error; a key appears in none of them but by its id, and no
vector, payload or filter does.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    multiprocess,
    start_http_server,
)

from soardb.errors import InvalidArgument, Unavailable

__all__ = ["Metrics", "Traces", "set_up_logs"]

_BUCKETS = (
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
)  # fmt: skip
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one process; with several processes their files are summed when asked for."""

    def __init__(self, is_shared: bool) -> None:
        self._is_shared = is_shared
        self._children: dict[tuple[str, str], tuple[Any, Any]] = {}
        self.registry = CollectorRegistry()
        mode: Any = "livesum" if is_shared else "all"
        registry = None if is_shared else self.registry
        registered: dict[str, Any] = {"registry": registry}
        self.calls = Counter(
            "soardb_calls", "Calls by method and status.", ["method", "code"], **registered
        )
        self.seconds = Histogram(
            "soardb_call_seconds", "Time of calls.", ["method"], buckets=_BUCKETS, **registered
        )
        self.in_flight = Gauge(
            "soardb_calls_in_flight", "Calls that are worked on.", multiprocess_mode=mode,
            **registered,
        )  # fmt: skip
        self.rows = Counter(
            "soardb_points_written", "Points stored, changed or deleted.", **registered
        )
        self.queries = Counter("soardb_queries", "Queries searched.", **registered)
        self.batch = Histogram(
            "soardb_search_batch",
            "Single queries searched together, if more than one.",
            buckets=_BATCH_BUCKETS,
            **registered,
        )

    def count(self, method: str, code: str, seconds: float) -> None:
        """One call more that has ended."""
        kept = self._children.get((method, code))
        if kept is None:
            kept = (self.calls.labels(method, code), self.seconds.labels(method))
            self._children[method, code] = kept
        kept[0].inc()
        kept[1].observe(seconds)

    def serve(self, port: int) -> tuple[int, Callable[[], None]]:
        """Show them on a loopback port; returns it and what ends that. Errors: Unavailable."""
        registry = self.registry
        if self._is_shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise Unavailable(
                f"expected a free port for metrics at 127.0.0.1:{port}: {error}; name another with "
                "--metrics-port, or -1 for none"
            ) from None

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return int(server.server_port), stop


class Traces:
    """A span a call, sent to an OTLP endpoint; nothing at all without one."""

    def __init__(self, endpoint: str | None) -> None:
        self._tracer: Any = None
        self._provider: Any = None
        if endpoint is None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise InvalidArgument(
                f"expected the extra tracing beside --traces: {error}; "
                "pip install 'soardb[tracing]'"
            ) from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "soardb"}))
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("soardb")

    def span(
        self, method: str, headers: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[Any] | None:
        """The span of one call, a child of the caller's `traceparent`; None without traces."""
        if self._tracer is None:
            return None
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"rpc.system": "grpc", "rpc.method": method}
        span: contextlib.AbstractContextManager[Any] = self._tracer.start_as_current_span(
            method, context=extract(headers), kind=SpanKind.SERVER, attributes=attributes
        )
        return span

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def set_up_logs(level: str, style: str) -> None:
    """Send the logs of server and engine to standard error, as text or one JSON object a line."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                last,
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "grpc._cython.cygrpc", "opentelemetry"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_error


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("soardb_service").error(
        "a thread died",
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        if args.exc_value is not None
        else None,
    )
