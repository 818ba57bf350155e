"""Micro-batching: who waits is searched with the others, who need not wait does not.

    soardb/batching.py -> [test_batching.py]

The searches here are held by the test, so that what is together with what is no matter of speed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from soardb import batching
from soardb.batching import Batcher
from soardb.errors import InvalidArgument, TimedOut, Unavailable


class Held:
    """A search that waits until it is let go, and notes what it was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, queries: Sequence[int]) -> list[int]:
        self.asked.append(list(queries))
        self.begun.release()
        assert self.go.acquire(timeout=10)
        return [query * 10 for query in queries]


def waiting(batcher: Batcher[int, int], count: int) -> None:
    """Wait until so many queries wait."""
    for _ in range(2000):
        with batcher._lock:
            if sum(map(len, batcher._waiting.values())) == count:
                return
        threading.Event().wait(0.005)
    raise AssertionError("they never waited")


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(16)


class TestOne:
    def test_a_query_alone_is_searched_alone_at_once(self) -> None:
        """No timer: one client has no longer a way than without batching."""
        asked: list[list[int]] = []

        def search(queries: Sequence[int]) -> list[int]:
            asked.append(list(queries))
            return [0 for _ in queries]

        batcher = Batcher[int, int](slots=1, most=8)
        for i in range(3):
            batcher.run("kind", i, search)
        assert asked == [[0], [1], [2]]

    def test_its_error_is_its_own(self) -> None:
        """And the slot is free again after it."""
        batcher = Batcher[int, int](slots=1, most=8)

        def refuse(queries: Sequence[int]) -> list[int]:
            raise ValueError("no")

        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                batcher.run("kind", 1, refuse)
        assert batcher.run("kind", 4, lambda queries: queries) == 4


class TestSeveral:
    def test_those_that_wait_are_searched_together(self, pool: ThreadPoolExecutor) -> None:
        """Five that come while one is searched make one call more, not five."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        futures = [pool.submit(batcher.run, "kind", 0, held)]
        assert held.begun.acquire(timeout=10)
        futures += [pool.submit(batcher.run, "kind", i, held) for i in range(1, 6)]
        waiting(batcher, 5)
        held.go.release(2)
        assert [future.result(10) for future in futures] == [0, 10, 20, 30, 40, 50]
        assert [sorted(asked) for asked in held.asked] == [[0], [1, 2, 3, 4, 5]]

    def test_other_kinds_are_searched_apart(self, pool: ThreadPoolExecutor) -> None:
        """A filter, a limit or a collection more makes another search."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        futures = [pool.submit(batcher.run, "kind", 0, held)]
        assert held.begun.acquire(timeout=10)
        futures += [pool.submit(batcher.run, i % 2, i, held) for i in range(1, 5)]
        waiting(batcher, 4)
        held.go.release(3)
        assert [future.result(10) for future in futures] == [0, 10, 20, 30, 40]
        assert sorted(sorted(asked) for asked in held.asked) == [[0], [1, 3], [2, 4]]

    def test_a_batch_has_a_greatest_size(self, pool: ThreadPoolExecutor) -> None:
        """So no answer waits for all the others."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=2)
        futures = [pool.submit(batcher.run, "kind", 0, held)]
        assert held.begun.acquire(timeout=10)
        futures += [pool.submit(batcher.run, "kind", i, held) for i in range(1, 6)]
        waiting(batcher, 5)
        held.go.release(4)
        assert [future.result(10) for future in futures] == [0, 10, 20, 30, 40, 50]
        assert [len(asked) for asked in held.asked] == [1, 2, 2, 1]

    def test_slots_run_at_once(self, pool: ThreadPoolExecutor) -> None:
        """Two slots are two searches under way."""
        held, batcher = Held(), Batcher[int, int](slots=2, most=8)
        futures = [pool.submit(batcher.run, "kind", i, held) for i in range(2)]
        assert held.begun.acquire(timeout=10)
        assert held.begun.acquire(timeout=10)
        held.go.release(2)
        assert [future.result(10) for future in futures] == [0, 10]

    def test_one_that_is_refused_takes_none_with_it(self, pool: ThreadPoolExecutor) -> None:
        """A batch with a query of NaN answers the others."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        first = pool.submit(batcher.run, "kind", 0, held)
        assert held.begun.acquire(timeout=10)

        def picky(queries: Sequence[int]) -> list[int]:
            if 3 in queries:
                raise InvalidArgument("not 3")
            return [query * 10 for query in queries]

        futures: list[Future[int]] = [pool.submit(batcher.run, "kind", i, picky) for i in (2, 3, 4)]
        waiting(batcher, 3)
        held.go.release()
        assert first.result(10) == 0
        assert futures[0].result(10) == 20
        assert futures[2].result(10) == 40
        with pytest.raises(InvalidArgument, match="not 3"):
            futures[1].result(10)

    def test_an_error_that_is_nobodys_is_told_to_all(self, pool: ThreadPoolExecutor) -> None:
        """A server that is away is asked once, not once for each that waits."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        first = pool.submit(batcher.run, "kind", 0, held)
        assert held.begun.acquire(timeout=10)
        asked: list[int] = []

        def away(queries: Sequence[int]) -> list[int]:
            asked.append(len(queries))
            raise Unavailable("away")

        futures: list[Future[int]] = [pool.submit(batcher.run, "kind", i, away) for i in (2, 3, 4)]
        waiting(batcher, 3)
        held.go.release()
        assert first.result(10) == 0
        for future in futures:
            with pytest.raises(Unavailable, match="away"):
                future.result(10)
        assert asked == [3]

    def test_one_that_waited_too_long_goes_alone(self, pool: ThreadPoolExecutor) -> None:
        """Its time is up; those beside it are searched, and the slot is free afterwards."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        first = pool.submit(batcher.run, "kind", 0, held)
        assert held.begun.acquire(timeout=10)
        with pytest.raises(TimedOut, match="0.01 s"):
            batcher.run("kind", 1, held, 0.01)
        second = pool.submit(batcher.run, "kind", 2, held)
        waiting(batcher, 1)
        held.go.release(2)
        assert [first.result(10), second.result(10)] == [0, 20]
        assert held.asked == [[0], [2]]
        assert batcher._free == 1

    @pytest.mark.parametrize("is_picked", [False, True])
    def test_one_that_is_interrupted_leaves_nobody_waiting(
        self, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, is_picked: bool
    ) -> None:
        """Ctrl-C in the thread that was to lead: another leads, and no slot is lost."""
        held, batcher = Held(), Batcher[int, int](slots=1, most=8)
        first = pool.submit(batcher.run, "kind", 0, held)
        assert held.begun.acquire(timeout=10)

        class Interrupted(batching._Ticket[int, int]):
            """Its wait ends by an interrupt, before or after it was picked to lead."""

            __slots__ = ("others", "real")

            def __init__(self, query: int) -> None:
                super().__init__(query)
                self.real, self.wake = self.wake, self  # type: ignore[assignment]

            def acquire(self, timeout: float = -1) -> bool:
                self.others = pool.submit(batcher.run, "kind", 2, held)
                waiting(batcher, 2)
                if is_picked:
                    held.go.release()
                    assert self.real.acquire(timeout=10)
                raise KeyboardInterrupt

            def release(self) -> None:
                self.real.release()

        made: list[Interrupted] = []

        def ticket(query: int) -> Interrupted:
            made.append(Interrupted(query))
            monkeypatch.undo()
            return made[-1]

        monkeypatch.setattr(batching, "_Ticket", ticket)
        with pytest.raises(KeyboardInterrupt):
            batcher.run("kind", 1, held)
        held.go.release(2)
        assert first.result(10) == 0
        assert made[0].others.result(10) == 20
        assert batcher._free == 1
        assert not batcher._waiting

    def test_nothing_is_lost_among_many_threads(self, pool: ThreadPoolExecutor) -> None:
        """Each of 4,000 answers is that of its own query."""
        batcher = Batcher[int, int](slots=1, most=8)

        def ask(start: int) -> bool:
            return all(
                batcher.run(i % 3, i, lambda queries: [q * 7 for q in queries]) == i * 7
                for i in range(start, start + 250)
            )

        assert all(pool.map(ask, range(0, 4000, 250)))
        assert batcher._free == 1
        assert not batcher._waiting
