"""The lock between reads and changes: shared by readers, alone for a writer, fair to it.

    soardb/rwlock.py -> [test_rwlock.py]

Threads that should wait are given a moment in which they must not get on; threads that should not
wait have many seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from soardb.rwlock import ReadWriteLock

MOMENT_S, LONG_S = 0.05, 20.0


def started(work: Callable[[], object]) -> tuple[threading.Thread, threading.Event]:
    """A thread that does the work, and the event of its end."""
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, done


def use(lock: ReadWriteLock, how: str) -> None:
    """Take the lock and give it back."""
    with lock.read() if how == "read" else lock.write():
        pass


class TestExclusion:
    def test_readers_share(self) -> None:
        """Ten searches at once, none waits for another."""
        lock, barrier = ReadWriteLock(), threading.Barrier(10, timeout=LONG_S)

        def read(_: int) -> None:
            with lock.read():
                barrier.wait()

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(read, range(10)))

    @pytest.mark.parametrize(("first", "second"), [("write", "read"), ("read", "write"),
                                                   ("write", "write")])  # fmt: skip
    def test_a_writer_is_alone(self, first: str, second: str) -> None:
        """Whoever comes second waits until the first has left."""
        lock = ReadWriteLock()
        with lock.read() if first == "read" else lock.write():
            _, done = started(lambda: use(lock, second))
            assert not done.wait(MOMENT_S)
        assert done.wait(LONG_S)

    def test_nothing_is_torn_under_load(self) -> None:
        """Two numbers that a writer changes together are never seen apart."""
        lock, pair, torn = ReadWriteLock(), [0, 0], []
        stop = threading.Event()

        def read(_: int) -> None:
            while not stop.is_set():
                with lock.read():
                    if pair[0] != pair[1]:
                        torn.append(tuple(pair))

        def write(_: int) -> None:
            for _ in range(300):
                with lock.write():
                    pair[0] += 1
                    pair[1] += 1

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read, i) for i in range(4)]
            writers = [pool.submit(write, i) for i in range(4)]
            for writer in writers:
                writer.result()
            stop.set()
            for reader in readers:
                reader.result()
        assert not torn
        assert pair == [1200, 1200]


class TestFairness:
    def test_a_waiting_writer_goes_before_new_readers(self) -> None:
        """Else a stream of searches would starve every write."""
        lock, order = ReadWriteLock(), []

        def write() -> None:
            with lock.write():
                order.append("write")

        def read() -> None:
            with lock.read():
                order.append("read")

        with lock.read():
            _, written = started(write)
            while not lock._waiting:
                threading.Event().wait(0.001)
            _, has_read = started(read)
            assert not has_read.wait(MOMENT_S)
        assert written.wait(LONG_S)
        assert has_read.wait(LONG_S)
        assert order == ["write", "read"]

    def test_writes_get_through_a_stream_of_reads(self) -> None:
        """Four threads read without a pause; a hundred writes are done all the same."""
        lock, stop = ReadWriteLock(), threading.Event()

        def read(_: int) -> None:
            while not stop.is_set():
                use(lock, "read")

        with ThreadPoolExecutor(5) as pool:
            readers = [pool.submit(read, i) for i in range(4)]
            writers = [pool.submit(use, lock, "write") for _ in range(100)]
            try:
                for writer in writers:
                    writer.result(timeout=LONG_S)
            finally:
                stop.set()
            for reader in readers:
                reader.result()


class TestErrors:
    @pytest.mark.parametrize("how", ["read", "write"])
    def test_an_error_inside_gives_the_lock_back(self, how: str) -> None:
        """The next one must not wait for ever."""
        lock = ReadWriteLock()
        with pytest.raises(KeyError), lock.read() if how == "read" else lock.write():
            raise KeyError
        for other in ("read", "write"):
            _, done = started(lambda other=other: use(lock, other))  # type: ignore[misc]
            assert done.wait(LONG_S)
