"""The short form of the fuzz: a few thousand requests to the door, to REST, and over the wire.

fuzz.py -> [test_fuzz.py]; `make fuzz` is the long form
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soardb_proto.v1 import points_pb2
from tests.service.fuzz import Fuzz
from tests.service.running import METHODS, Running, outcome

FUZZ = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    with Fuzz(tmp_path_factory.mktemp("fuzz") / "db") as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("wire") / "db"
    Fuzz(folder).__exit__()  # makes the collections
    with Running(folder) as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@settings(FUZZ, max_examples=15)
def test_random_bytes_are_answered(fuzz: Fuzz, method: str, data: st.DataObject) -> None:
    """Of every method: what can be parsed by chance is handled, the rest refused."""
    part = st.binary(max_size=200)
    takes = METHODS[method].method.client_streaming
    fuzz.ask(
        method,
        data.draw(st.lists(part, max_size=3) if takes else st.lists(part, min_size=1, max_size=1)),
    )


@given(source=st.randoms(use_true_random=False))
@settings(FUZZ, max_examples=300)
def test_messages_of_any_content_are_answered(fuzz: Fuzz, source: random.Random) -> None:
    """Hypothesis chooses, so that what fails is made small."""
    fuzz.ask(*fuzz.request(source))


def test_many_requests_leave_the_data_consistent(fuzz: Fuzz) -> None:
    """Two thousand from one seed, with what they do to each other."""
    source = random.Random(7)
    for i in range(2_000):
        if i % 100 == 0:
            fuzz.prepare()
        fuzz.ask(*fuzz.request(source))
    fuzz.check()
    assert fuzz.statuses["OK"] > 100


def test_rest_is_never_lost_for_an_answer(fuzz: Fuzz) -> None:
    """No 500, whatever JSON comes; and what was written through it is consistent too."""
    source = random.Random(8)
    for _ in range(20):
        fuzz.prepare()
        fuzz.ask_rest([fuzz.rest_request(source) for _ in range(40)])
    fuzz.check()


def test_the_wire_survives_it(fuzz: Fuzz, server: Running) -> None:
    """The same through grpc, whose own layers see the bytes first."""
    source = random.Random(9)
    for _ in range(400):
        method, messages = fuzz.request(source)
        if METHODS[method].method.name in ("Drop", "Rename"):
            continue
        takes = METHODS[method].method.client_streaming
        started = time.monotonic()
        code, why = outcome(
            server.call, method, iter(messages) if takes else messages[0], timeout=5
        )
        assert code not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"), (method, messages, why)
        assert time.monotonic() - started < 20
    count = server.call("Points/Count", points_pb2.CountRequest(collection="a")).count
    batches = server.call("Points/Export", points_pb2.ExportRequest(collection="a"))
    assert sum(batch.vectors.count for batch in batches) == count
    assert "Traceback" not in server.log()


def test_a_late_answer_and_an_internal_error_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above are worth what their asserts are."""
    with Fuzz(tmp_path / "db") as fuzz:
        way = fuzz.server.passes[METHODS["Points/Count"].path]
        asked = points_pb2.CountRequest(collection="a").SerializeToString()

        def broken(request: object, call: object) -> None:
            raise KeyError("broken")

        monkeypatch.setitem(
            fuzz.server.passes,
            METHODS["Points/Count"].path,
            type(way)(way.rule, way.request, broken, way.takes_stream, way.gives_stream),
        )
        with pytest.raises(AssertionError, match="INTERNAL from Points/Count"):
            fuzz.ask("Points/Count", [asked])
