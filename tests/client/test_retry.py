"""When a call is tried again: only where it does no harm, and never beyond its deadline.

conftest.py (a server that does as told) -> [test_retry.py] -> soardb_client/retry.py
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest

from soardb.errors import Closed, InvalidArgument, TimedOut, Unavailable
from soardb_client.failures import Failure
from soardb_client.retry import Attempts, Backoff, Limit
from soardb_client.target import Settings
from soardb_proto.v1 import collections_pb2, points_pb2
from tests.client.conftest import D, Fake, Opener, status

CODE = grpc.StatusCode
GONE = Failure("UNAVAILABLE", "gone")
VECTOR = np.ones((1, D), np.float32)


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def highest(low: float, high: float) -> float:
    return high


class TestAttempts:
    def test_the_bound_of_the_pause_doubles(self) -> None:
        """Up to the longest; the pause itself is drawn from the upper half."""
        backoff = Backoff(retries=6, first_s=0.1, most_s=1.0, uniform=highest)
        attempts = Attempts(backoff, None)
        pauses = [attempts.pause_after(GONE, is_repeatable=True) for _ in range(7)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, None]
        assert 0.05 <= Backoff(first_s=0.1).pause(0) <= 0.1

    def test_attempts_outlast_the_refusals_of_grpc_itself(self) -> None:
        """Else a client may give up on a server that has been back for long."""
        options = dict(Settings("t", "t:1", None, (), 1, 1, 1, 1).channel_options())
        refused_s = 1.2 * options["grpc.max_reconnect_backoff_ms"] / 1000  # with its own jitter
        shortest = Attempts(Backoff(uniform=lambda low, high: low), None)
        pauses = [shortest.pause_after(GONE, is_repeatable=True) for _ in range(5)]
        assert sum(pause for pause in pauses if pause is not None) > refused_s

    def test_no_pause_goes_beyond_the_deadline(self) -> None:
        """An answer that comes too late is none."""
        clock = Clock()
        attempts = Attempts(Backoff(uniform=highest, first_s=0.3, clock=clock), 1.0)
        assert attempts.pause_after(GONE, is_repeatable=True) == pytest.approx(0.3)
        clock.now += 0.5
        assert attempts.remaining_s() == pytest.approx(0.5)
        assert attempts.pause_after(GONE, is_repeatable=True) is None

    @pytest.mark.parametrize(
        ("failure", "is_repeatable", "is_tried"),
        [
            (GONE, True, True),
            (GONE, False, False),
            (Failure("UNAVAILABLE", "", "OVERLOADED", 0.5), False, True),
            (Failure("RESOURCE_EXHAUSTED", "", "RATE_LIMITED", 0.5), True, True),
            (Failure("RESOURCE_EXHAUSTED", "", "", 0.5), True, True),
            (Failure("RESOURCE_EXHAUSTED", ""), True, False),
            (Failure("RESOURCE_EXHAUSTED", "", "OUT_OF_SPACE"), True, False),
            (Failure("UNAVAILABLE", "", "CLOSED"), True, False),
            (Failure("FAILED_PRECONDITION", "", "NOT_YET"), True, False),
            (Failure("DEADLINE_EXCEEDED", ""), True, False),
            (Failure("INTERNAL", ""), True, False),
            (Failure("CANCELLED", ""), True, False),
        ],
        ids=str,
    )
    def test_which_failures(self, failure: Failure, is_repeatable: bool, is_tried: bool) -> None:
        """Those that pass, of calls that may be repeated or that the server refused to begin."""
        pause = Attempts(Backoff(), None).pause_after(failure, is_repeatable)
        assert (pause is not None) == is_tried
        if failure.retry_s is not None and pause is not None:
            assert pause >= failure.retry_s

    def test_a_limit_runs_out(self) -> None:
        """A method of several calls has one limit for all of them."""
        clock = Clock()
        limit = Limit(2, clock)
        assert limit.left_s() == 2.0
        clock.now += 2
        with pytest.raises(TimedOut):
            limit.left_s()
        assert Limit(None, clock).left_s() is None
        with pytest.raises(InvalidArgument):
            Limit("2", clock)  # type: ignore[arg-type]


def failing(times: int, *, then: Any, **how: Any) -> Any:
    """A method that fails some times."""
    left = [times]

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if left[0]:
            left[0] -= 1
            status(context, **how)
        return then

    return answer


class TestOverTheWire:
    def test_a_read_is_tried_again(self, fake: Fake, client_of: Opener) -> None:
        """A server that is away for a moment is not noticed."""
        fake.methods["Count"] = failing(
            3, then=points_pb2.CountReply(count=7), code=CODE.UNAVAILABLE
        )
        assert client_of(fake.target).get_collection("c").count() == 7
        assert len(fake.requests("Count")) == 4

    def test_a_write_is_sent_again_under_one_request_id(
        self, fake: Fake, client_of: Opener
    ) -> None:
        """So that the server does it once, whichever attempt it was that arrived."""
        fake.methods["Upsert"] = failing(
            2, then=points_pb2.WriteReply(count=1, seq=5), code=CODE.UNAVAILABLE
        )
        collection = client_of(fake.target).get_collection("c")
        assert collection.upsert([1], VECTOR) == 1
        assert collection.upsert([1], VECTOR) == 1
        *same, other = [request.request_id for request in fake.requests("Upsert")]
        assert len(same) == 3 == same.count(same[0])
        assert len(same[0]) == 32
        assert other != same[0]

    def test_a_write_from_memory_is_sent_once(self, fake: Fake, client_of: Opener) -> None:
        """Nothing remembers it, so nothing would know it again."""
        fake.methods["Upsert"] = failing(9, then=None, code=CODE.UNAVAILABLE)
        with pytest.raises(Unavailable):
            client_of(fake.target).get_collection("c").upsert([1], VECTOR, ack="memory")
        (request,) = fake.requests("Upsert")
        assert request.request_id == ""

    def test_a_call_that_may_not_be_repeated_is_not(self, fake: Fake, client_of: Opener) -> None:
        """Unless the server says that it has not begun it."""
        made = collections_pb2.Collection(name="c", dim=D)
        client = client_of(fake.target)
        fake.methods["Create"] = failing(1, then=made, code=CODE.UNAVAILABLE)
        with pytest.raises(Unavailable):
            client.create_collection("c", D)
        fake.methods["Create"] = failing(
            1, then=made, code=CODE.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_s=0.05
        )
        started = time.monotonic()
        client.create_collection("c", D)
        assert time.monotonic() - started >= 0.05

    def test_it_gives_up(self, fake: Fake, client_of: Opener) -> None:
        """After as many attempts as allowed, with the server's name and what to do."""
        fake.methods["Count"] = failing(99, then=None, code=CODE.UNAVAILABLE)
        collection = client_of(fake.target, retries=2).get_collection("c")
        with pytest.raises(Unavailable, match=f"{fake.target}.*soardb serve"):
            collection.count()
        assert len(fake.requests("Count")) == 3

    def test_a_deadline_that_passed_is_not_tried_again(self, fake: Fake, client_of: Opener) -> None:
        """The time is up for all attempts together."""

        def slow(request: Any, context: grpc.ServicerContext) -> Any:
            time.sleep(0.3)
            return points_pb2.CountReply()

        fake.methods["Count"] = slow
        collection = client_of(fake.target).get_collection("c")
        with pytest.raises(TimedOut, match="Count in time"):
            collection.count(timeout=0.1)
        assert len(fake.requests("Count")) == 1

    def test_attempts_share_the_deadline(self, fake: Fake, client_of: Opener) -> None:
        """The second one has what the first left."""
        left: list[float] = []

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            left.append(context.time_remaining() or 0.0)
            if len(left) == 1:
                time.sleep(0.2)
                status(context, CODE.UNAVAILABLE)
            return points_pb2.CountReply()

        fake.methods["Count"] = answer
        client_of(fake.target).get_collection("c").count(timeout=5)
        assert left[0] < 6
        assert left[1] <= left[0] - 0.15  # grpc rounds

    def test_a_stream_is_never_tried_again(self, fake: Fake, client_of: Opener) -> None:
        """What came cannot be unsaid, and would come twice."""

        def export(request: Any, context: grpc.ServicerContext) -> Any:
            yield points_pb2.ExportBatch()
            status(context, CODE.UNAVAILABLE)

        fake.methods["Export"] = export
        parts = client_of(fake.target).get_collection("c").batches()
        assert len(next(parts)) == 0
        with pytest.raises(Unavailable):
            next(parts)
        assert len(fake.requests("Export")) == 1

    def test_a_dropped_collection_is_not_waited_for(self, fake: Fake, client_of: Opener) -> None:
        """CLOSED comes with UNAVAILABLE too, and stays so."""
        fake.methods["Count"] = failing(9, then=None, code=CODE.UNAVAILABLE, reason="CLOSED")
        with pytest.raises(Closed, match="so it is"):
            client_of(fake.target).get_collection("c").count()
        assert len(fake.requests("Count")) == 1

    def test_nobody_there(self, client_of: Opener) -> None:
        """Said soon, and with what to do."""
        client = client_of("grpc://127.0.0.1:1", retries=1)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="grpc://127.0.0.1:1, got none"):
            client.list_collections()
        assert time.monotonic() - started < 5
