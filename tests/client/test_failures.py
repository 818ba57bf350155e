"""From a status to an error of soardb: the class of the reason, else that of the code.

soardb/errors.py -> [test_failures.py] -> soardb_client/failures.py
"""

from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2

from soardb import errors
from soardb_client.failures import REASONS, Failure, NotYet, error_of, failure_of_status
from soardb_proto.words import reason_of
from soardb_service.convert import STATUSES, status_of

TARGET, METHOD = "grpc://there:7600", "/soardb.v1.Points/Search"

CLASSES = [getattr(errors, name) for name in errors.__all__]


class TestReasons:
    @pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
    def test_every_error_has_a_reason(self, kind: type[errors.SoarError]) -> None:
        """A new leaf without a row would arrive as another error."""
        assert REASONS[reason_of(kind)] is kind

    @pytest.mark.parametrize("kind", list(STATUSES), ids=lambda kind: kind.__name__)
    def test_what_the_server_says_is_understood(self, kind: type[errors.SoarError]) -> None:
        """Its table and ours are two ends of one wire."""
        known = REASONS[reason_of(kind)]
        public = next(part for part in known.__mro__ if part.__module__ == "soardb.errors")
        assert issubclass(kind, public)
        assert known in (public, NotYet)  # the client answers that one itself, or as Unavailable

    @pytest.mark.parametrize(
        "kind", [k for k in CLASSES if k is not errors.SoarError], ids=lambda kind: kind.__name__
    )
    def test_class_and_message_survive_the_way(self, kind: type[errors.SoarError]) -> None:
        """What the engine raises is what the caller of a client sees."""
        code, status = status_of(kind("expected one thing, got another"))
        failure = failure_of_status(status)
        assert failure.code == code.name
        error = error_of(failure, TARGET, METHOD)
        assert type(error) is kind
        assert str(error) == "expected one thing, got another"

    def test_a_reason_of_another_domain_is_none_of_ours(self) -> None:
        """A proxy may give details too."""
        status = status_of(errors.NotFound("x"))[1]
        for detail in status.details:
            detail.value = detail.value.replace(b"soardb", b"others")
        assert failure_of_status(status).reason == ""


BY_CODE = {
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.TimedOut,
    "UNAUTHENTICATED": errors.NotAllowed,
    "PERMISSION_DENIED": errors.NotAllowed,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "OUT_OF_RANGE": errors.InvalidArgument,
    "UNIMPLEMENTED": errors.InvalidArgument,
    "DATA_LOSS": errors.CorruptStorage,
    "RESOURCE_EXHAUSTED": errors.Unavailable,
    "ABORTED": errors.Unavailable,
    "CANCELLED": errors.Unavailable,
    "INTERNAL": errors.SoarError,
    "UNKNOWN": errors.SoarError,
    "FAILED_PRECONDITION": errors.SoarError,
}


class TestCodes:
    def test_the_table_of_this_test_is_whole(self) -> None:
        """Every code but OK."""
        assert {code.name for code in grpc.StatusCode} - {"OK"} == BY_CODE.keys()

    @pytest.mark.parametrize(("code", "kind"), BY_CODE.items())
    def test_without_details_the_code_says_the_class(
        self, code: str, kind: type[errors.SoarError]
    ) -> None:
        """A proxy, a dead server, or none of ours; the message names the server."""
        error = error_of(Failure(code, "words of grpc"), TARGET, METHOD)
        assert type(error) is kind
        assert TARGET in str(error)
        assert "words of grpc" in str(error) or code == "DEADLINE_EXCEEDED"

    def test_a_message_that_is_too_large_says_to_send_fewer(self) -> None:
        """It is no overload: trying again cannot help."""
        failure = Failure("RESOURCE_EXHAUSTED", "Sent message larger than max (9 vs. 8)")
        error = error_of(failure, TARGET, METHOD)
        assert type(error) is errors.InvalidArgument
        assert "send fewer" in str(error)

    def test_an_unknown_reason_falls_back_on_the_code(self) -> None:
        """A newer server may have more errors."""
        error = error_of(Failure("NOT_FOUND", "gone", "EVAPORATED"), TARGET, METHOD)
        assert type(error) is errors.NotFound

    def test_numbers_of_no_code_are_unknown(self) -> None:
        """A status of an operation is only a number."""
        status = status_of(errors.NotFound("x"))[1]
        status.code = 99
        assert failure_of_status(status).code == code_pb2.Code.Name(2)
