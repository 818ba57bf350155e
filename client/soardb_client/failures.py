"""From the status of a call to the error of soardb that it stands for.

    client.py, aio.py -> [failures.py] -> soardb/errors.py

A soardb server says in its status which error of soardb it was (google.rpc.ErrorInfo), and that
class is raised with the same message as the engine's. A status without such details comes from
grpc, a proxy or a server that is no soardb: its code says the class, and the message is ours.

Nothing here calls anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from soardb import errors
from soardb.errors import (
    AlreadyExists,
    CorruptStorage,
    InvalidArgument,
    NotAllowed,
    NotFound,
    SoarError,
    TimedOut,
    Unavailable,
)
from soardb_proto.words import DETAILS, DOMAIN, reason_of

__all__ = [
    "REASONS",
    "Failure",
    "NotYet",
    "error_of",
    "failure_of",
    "failure_of_status",
]


class NotYet(Unavailable):
    """The collection of that name does not hold a write that this client has made."""


REASONS: dict[str, type[SoarError]] = {
    **{reason_of(kind): kind for kind in (getattr(errors, name) for name in errors.__all__)},
    "INTERNAL": SoarError,
    "UNAUTHENTICATED": NotAllowed,
    "PERMISSION_DENIED": NotAllowed,
    "OVERLOADED": Unavailable,
    "RATE_LIMITED": Unavailable,
    "NOT_YET": NotYet,
}
"""The class that each reason of a soardb server stands for."""

_PASSING = {reason for reason, kind in REASONS.items() if kind is Unavailable}

_CODES: dict[str, type[SoarError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "ALREADY_EXISTS": AlreadyExists,
    "NOT_FOUND": NotFound,
    "DATA_LOSS": CorruptStorage,
    "PERMISSION_DENIED": NotAllowed,
    "UNAUTHENTICATED": NotAllowed,
    "ABORTED": Unavailable,
    "CANCELLED": Unavailable,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call failed.

    code     name of the status code
    message  of the server, or of grpc
    reason   of a soardb server; "" where nobody gave one
    retry_s  after how many seconds the server wants to be asked again; it did nothing then
    """

    code: str
    message: str
    reason: str = ""
    retry_s: float | None = None

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later."""
        if self.reason:
            return self.reason in _PASSING
        return self.code == "UNAVAILABLE" or self.retry_s is not None


def failure_of(error: Any) -> Failure:
    """The failure of a grpc.RpcError, of the blocking or of the asyncio kind."""
    code = error.code().name
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            try:
                return failure_of_status(status_pb2.Status.FromString(value), code)
            except DecodeError:
                break
    return Failure(code, error.details() or "")


def failure_of_status(status: status_pb2.Status, code: str | None = None) -> Failure:
    """The failure of a google.rpc.Status, as a call or an operation ends with."""
    reason, retry_s = "", None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            retry_s = max(0.0, retry.retry_delay.ToNanoseconds() / 1e9)
    if code is None:
        known = status.code in code_pb2.Code.values()
        code = code_pb2.Code.Name(status.code) if known else "UNKNOWN"
    return Failure(code, status.message, reason, retry_s)


def error_of(failure: Failure, target: str, method: str) -> SoarError:
    """The error to raise.

    target  the server, as the caller wrote it
    method  what was called, such as /soardb.v1.Points/Search
    """
    if failure.reason in REASONS:
        return REASONS[failure.reason](failure.message)
    name, said = method.rpartition("/")[2], failure.message or failure.code
    match failure.code:
        case "UNAVAILABLE":
            return Unavailable(
                f"expected an answer of {target}, got none ({said}); see that `soardb serve` runs "
                "there and that address, TLS and port are right, then try again"
            )
        case "DEADLINE_EXCEEDED":
            return TimedOut(
                f"expected {target} to answer {name} in time, it did not; a write may be done all "
                "the same. Pass a longer timeout=, or ask for less"
            )
        case "RESOURCE_EXHAUSTED" if "larger than max" in said:
            return InvalidArgument(
                f"expected messages that {target} and this client take, got a larger one for "
                f"{name} ({said}); send fewer points in one call or use ingest(), and ask for "
                "fewer results or use batches()"
            )
        case "RESOURCE_EXHAUSTED":
            return Unavailable(f"{target} takes no more calls now ({said}); try again later")
        case "UNIMPLEMENTED":
            return InvalidArgument(
                f"expected a soardb server that knows {method}, {target} does not ({said}); see "
                "that it is one, and as new as this client"
            )
    kind = _CODES.get(failure.code, SoarError)
    return kind(f"{target} answered {name} with {failure.code}: {said}")
