"""A stream of writes: the window, and what happens when it breaks.

conftest.py (a server that does as told) -> [test_ingest.py] -> soardb_client/ingest.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from soardb.errors import AlreadyExists, Unavailable
from soardb_client.ingest import _BYTES, _ROWS, _parts
from soardb_proto.v1 import points_pb2
from tests.client.conftest import D, Fake, Opener, status

CODE = grpc.StatusCode


def batches(n: int, rows: int = 2) -> Iterator[Any]:
    for i in range(n):
        yield range(i * rows, (i + 1) * rows), np.full((rows, D), i + 1, np.float32)


class Sink:
    """An Ingest that writes to a list, and breaks where it is told to.

    breaks_after: after how many batches of each stream in turn. says: whether they are acknowledged
    """

    def __init__(self, window: int, breaks_after: list[int], says: bool = True) -> None:
        self.window = window
        self.streams: list[points_pb2.IngestRequest] = []
        self.written: dict[int, bytes] = {}
        self.order: list[int] = []
        self._breaks_after = breaks_after
        self._says = says

    def __call__(
        self, requests: Iterator[points_pb2.IngestRequest], context: grpc.ServicerContext
    ) -> Iterator[points_pb2.IngestAck]:
        first = next(requests)
        self.streams.append(first)
        after = self._breaks_after.pop(0) if self._breaks_after else None
        yield points_pb2.IngestAck(window=self.window)
        for count, request in enumerate(requests):
            if count == after:
                status(context, CODE.UNAVAILABLE, "broken")
            self.order.append(request.batch)
            self.written.setdefault(request.batch, request.ids.i64)
            if after is None or self._says:
                yield points_pb2.IngestAck(batch=request.batch, seq=100 + request.batch)


class TestWindow:
    @pytest.mark.parametrize(("window", "wanted", "most"), [(3, None, 3), (8, 2, 2), (1, None, 1)])
    def test_no_more_than_the_window_is_under_way(
        self, fake: Fake, client_of: Opener, window: int, wanted: int | None, most: int
    ) -> None:
        """The server's, or a smaller one of the caller's."""
        taken, acknowledged, highest = [0], [0], [0]

        def source() -> Iterator[Any]:
            for batch in batches(20):
                taken[0] += 1
                highest[0] = max(highest[0], taken[0] - acknowledged[0])
                yield batch

        def progress(count: int) -> None:
            acknowledged[0] = count // 2

        fake.methods["Ingest"] = Sink(window, [])
        collection = client_of(fake.target).get_collection("c")
        assert collection.ingest(source(), window=wanted, progress=progress) == 40
        assert highest[0] == most

    def test_a_read_after_it_sees_it(self, fake: Fake, client_of: Opener) -> None:
        """Acknowledgements carry sequence numbers."""
        fake.methods["Ingest"] = Sink(4, [])
        fake.methods["Count"] = lambda request, context: points_pb2.CountReply()
        collection = client_of(fake.target).get_collection("c")
        collection.ingest(batches(3))
        collection.count()
        assert fake.requests("Count")[0].min_seq == 103


class TestBreaking:
    @pytest.mark.parametrize("says", [True, False])
    def test_it_goes_on_after_the_last_acknowledgement(
        self, fake: Fake, client_of: Opener, says: bool
    ) -> None:
        """Under the same stream id; batches without an answer are sent again, and no others."""
        sink = Sink(4, [3, 0, 2], says)
        fake.methods["Ingest"] = sink
        collection = client_of(fake.target).get_collection("c")
        assert collection.ingest(batches(12)) == 24
        assert len(sink.streams) == 4
        assert len({first.stream_id for first in sink.streams}) == 1
        assert sink.streams[0].stream_id
        assert sorted(sink.written) == list(range(1, 13))
        assert [np.frombuffer(sink.written[i], np.int64)[0] // 2 for i in range(1, 13)] == list(
            range(12)
        )
        if says:
            assert sink.order == list(range(1, 13))

    def test_without_resume_it_ends(self, fake: Fake, client_of: Opener) -> None:
        """With what broke it."""
        fake.methods["Ingest"] = Sink(4, [3])
        with pytest.raises(Unavailable):
            client_of(fake.target).get_collection("c").ingest(batches(12), resume=False)

    def test_it_gives_up_where_nothing_is_won(self, fake: Fake, client_of: Opener) -> None:
        """Attempts are counted anew after each acknowledgement, and not otherwise."""
        sink = Sink(4, [1] * 9 + [0] * 99)
        fake.methods["Ingest"] = sink
        collection = client_of(fake.target, retries=1).get_collection("c")
        with pytest.raises(Unavailable):
            collection.ingest(batches(12))
        assert len(sink.streams) == 9 + 4
        assert sorted(sink.written) == list(range(1, 10))

    def test_an_error_of_the_server_is_no_break(self, fake: Fake, client_of: Opener) -> None:
        """It would come again."""

        def refuse(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            next(requests)
            yield points_pb2.IngestAck(window=2)
            next(requests)
            status(context, CODE.ALREADY_EXISTS, "id 1 is there", "ALREADY_EXISTS")

        fake.methods["Ingest"] = refuse
        with pytest.raises(AlreadyExists, match="id 1 is there"):
            client_of(fake.target).get_collection("c").ingest(batches(9), "insert")
        assert len(fake.requests("Ingest")) == 1

    def test_a_server_that_is_full_is_waited_for(self, fake: Fake, client_of: Opener) -> None:
        """It refuses the stream, and says for how long."""
        sink, refused = Sink(4, []), [0]

        def busy(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            if refused[0] < 2:
                refused[0] += 1
                status(context, CODE.RESOURCE_EXHAUSTED, "full", "OVERLOADED", 0.01)
            yield from sink(requests, context)

        fake.methods["Ingest"] = busy
        assert client_of(fake.target).get_collection("c").ingest(batches(5)) == 10

    def test_a_stream_that_ends_before_its_time(self, fake: Fake, client_of: Opener) -> None:
        """Says so, instead of reporting what was never acknowledged."""

        def short(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield points_pb2.IngestAck(window=2)

        fake.methods["Ingest"] = short
        with pytest.raises(Unavailable, match="ended before"):
            client_of(fake.target).get_collection("c").ingest(batches(5))


class TestParts:
    @pytest.mark.parametrize(
        "sizes",
        [[10] * 25_000, [_BYTES // 3] * 10, [_BYTES * 2] * 3, [], [1], [0] * _ROWS],
        ids=len,
    )
    def test_a_large_batch_is_cut_into_messages(self, sizes: list[int]) -> None:
        """Each of a size that a server takes, or of one row; none is lost."""
        parts = list(_parts(sizes, 16))
        assert [i for part in parts for i in range(part.start, part.stop)] == list(
            range(len(sizes))
        )
        for part in parts:
            rows = part.stop - part.start
            assert rows <= _ROWS
            assert rows == 1 or sum(sizes[part]) + 80 * rows <= _BYTES

    def test_they_arrive(self, fake: Fake, client_of: Opener) -> None:
        """In their order."""
        sink = Sink(2, [])
        fake.methods["Ingest"] = sink
        one = (range(25_000), np.ones((25_000, D), np.float32))
        assert client_of(fake.target).get_collection("c").ingest([one]) == 25_000
        rows = [len(data) // 8 for data in sink.written.values()]
        assert rows == [_ROWS, _ROWS, 5_000]


async def _each(n: int) -> Any:
    for batch in batches(n):
        yield batch


class TestAsynchronousBatches:
    def test_they_may_come_from_an_asynchronous_source(self, fake: Fake, loop: Any) -> None:
        """As from another connection."""
        import asyncio

        from soardb_client import AsyncClient

        async def run() -> int:
            async with AsyncClient(fake.target) as client:
                return await (await client.get_collection("c")).ingest(_each(5))

        fake.methods["Ingest"] = Sink(2, [])
        assert asyncio.run_coroutine_threadsafe(run(), loop).result(30) == 10
