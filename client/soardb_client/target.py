"""Where a server is and how to speak to it: grpc://host:port, keys, certificates, limits.

    a caller's address and options -> [target.py] -> client.py, aio.py

Everything is checked here, before a connection is tried. A key is never shown, and never sent in
the clear to another machine unless asked for.
"""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, NotAllowed, NotFound
from soardb.options import as_number
from soardb.schema import shown

__all__ = ["MAX_MESSAGE_BYTES", "Settings", "as_timeout", "settings_of"]

MAX_MESSAGE_BYTES = 64 * 2**20
DEFAULT_PORT = 7600
KEY_VARIABLE = "SOARDB_API_KEY"

_FORM = "grpc://host:port, grpcs://host:port or grpc://unix:PATH"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client knows of its server before the first call.

    target       as the caller wrote it
    address      as grpc wants it: host:port or unix:PATH
    tls          None for plain text, else (roots, private key, certificate chain) as PEM or None
    metadata     sent with every call
    timeout_s    of a read, unless the call says another
    write_timeout_s  of a write
    connections  real ones, used in turn
    retries      attempts after the first
    gather       calls of gathered searches under way at once; 0 gathers none
    """

    target: str
    address: str
    tls: tuple[bytes | None, bytes | None, bytes | None] | None = field(repr=False)
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    timeout_s: float
    write_timeout_s: float
    connections: int
    retries: int
    gather: int = 0

    def seconds(self, kind: str, least_s: float) -> float | None:
        """How long a call of a kind may take where its caller does not say; None for ever."""
        usual = {"read": self.timeout_s, "write": self.write_timeout_s}.get(kind)
        return None if usual is None else usual + least_s

    def channel_options(self) -> list[tuple[str, Any]]:
        """Arguments of every channel."""
        return [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # Channels to one address would share one connection otherwise.
            ("grpc.use_local_subchannel_pool", 1),
            # A server counts pings that come more often than every five minutes as an attack.
            ("grpc.keepalive_time_ms", 330_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # After a failure grpc refuses calls by itself for a second, later for minutes, though
            # the server may be back: our own back-off is the one that counts, so this is less
            # than the shortest sum of four pauses.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.primary_user_agent", "soardb-client"),
        ]


def settings_of(
    target: object,
    *,
    api_key: str | None,
    ca: str | os.PathLike[str] | None,
    certificate: str | os.PathLike[str] | None,
    private_key: str | os.PathLike[str] | None,
    timeout: float,
    write_timeout: float,
    connections: int,
    retries: int,
    gather: int = 0,
    allow_plaintext_key: bool,
) -> Settings:
    """Checked settings. Errors: InvalidArgument, NotAllowed, NotFound for a file of a path."""
    address, is_tls, is_local = _parsed(target)
    key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
    if key is not None:
        _check_key(key)
        if not (is_tls or is_local or allow_plaintext_key):
            raise NotAllowed(
                f"expected grpcs:// for {target}: over grpc:// everybody on the way could read the "
                "API key; serve with TLS, or pass allow_plaintext_key=True at your own risk"
            )
    if not is_tls and any(path is not None for path in (ca, certificate, private_key)):
        raise InvalidArgument(
            f"expected ca, certificate and private_key beside grpcs:// alone, got {target}"
        )
    if (certificate is None) != (private_key is None):
        raise InvalidArgument("expected certificate and private_key together, got one of them")
    tls = (_read(ca), _read(private_key), _read(certificate)) if is_tls else None
    return Settings(
        target=str(target),
        address=address,
        tls=tls,
        metadata=() if key is None else (("authorization", f"Bearer {key}"),),
        timeout_s=_usual(timeout, "timeout"),
        write_timeout_s=_usual(write_timeout, "write_timeout"),
        connections=as_int(connections, "connections", 1, 64),
        retries=as_int(retries, "retries", 0, 100),
        gather=as_int(gather, "gather", 0, 64),
    )


def as_timeout(value: object) -> float:
    """Seconds of one call, as soardb/deadline.py takes them. Errors: InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidArgument(f"expected timeout as a number of seconds, got {value!r}")
    return float(value)


def _usual(value: object, name: str) -> float:
    """Seconds of calls that do not say. Errors: InvalidArgument."""
    seconds = as_number(value, name)
    if seconds <= 0:
        raise InvalidArgument(f"expected {name} as seconds, more than 0, got {shown(value)}")
    return seconds


def _parsed(target: object) -> tuple[str, bool, bool]:
    """(address, whether TLS, whether on this machine) of a target."""
    if not isinstance(target, str):
        raise InvalidArgument(f"expected a server as {_FORM}, got {shown(target)}")
    scheme, found, rest = target.partition("://")
    if not found or scheme not in ("grpc", "grpcs"):
        raise InvalidArgument(f"expected a server as {_FORM}, got {target!r}")
    if rest.startswith("unix:"):
        if rest == "unix:" or "\0" in rest:
            raise InvalidArgument(f"expected the path of a socket after unix:, got {target!r}")
        return rest, scheme == "grpcs", True
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgument(f"expected a server as {_FORM}, got {target!r}: {error}") from None
    if not host or parts.netloc != rest.rstrip("/") or parts.username is not None:
        raise InvalidArgument(f"expected a server as {_FORM} and nothing else, got {target!r}")
    shown_host = f"[{host}]" if ":" in host else host
    return (
        f"{shown_host}:{DEFAULT_PORT if port is None else port}",
        scheme == "grpcs",
        _is_local(host),
    )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_key(key: object) -> None:
    """A key goes into a header: printable ASCII without spaces. It is not shown."""
    if not isinstance(key, str) or not key or not all("!" <= c <= "~" for c in key):
        raise InvalidArgument(
            "expected api_key as a string of printable ASCII without spaces, as `soardb keys add` "
            "prints it; got another"
        )


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotFound(f"expected a PEM file at {path}: {error.strerror or error}") from None
