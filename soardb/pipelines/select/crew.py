"""The machines of parts.py: processes of this one, or actors of a Ray cluster.

    run.py -> [crew.py] -> parts.py

Each is handed its part once and then answers one method after the other.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from soardb.errors import Unavailable
from soardb.pipelines.select.parts import Part

__all__ = ["Here", "OnRay", "Processes"]

_part: Part | None = None  # of a worker process


class Here:
    """Parts in this process, one after the other: for tests, and where there is one machine."""

    def __init__(self, parts: Sequence[tuple[Any, ...]]) -> None:
        self._parts = [Part(*arguments) for arguments in parts]

    def __len__(self) -> int:
        return len(self._parts)

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """See Crew."""
        return [self.one(number, method, *arguments) for number in range(len(self))]

    def one(self, number: int, method: str, *arguments: Any) -> Any:
        """See Crew."""
        return getattr(self._parts[number], method)(*arguments)

    def close(self) -> None:
        """Nothing to let go of."""


class Processes:
    """One process a part, begun by the arguments of Part."""

    def __init__(self, parts: Sequence[tuple[Any, ...]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, context, initializer=_begin, initargs=arguments)
            for arguments in parts
        ]

    def __len__(self) -> int:
        return len(self._pools)

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """See Crew."""
        calls = [pool.submit(_call, method, *arguments) for pool in self._pools]
        return [call.result() for call in calls]

    def one(self, number: int, method: str, *arguments: Any) -> Any:
        """See Crew."""
        return self._pools[number].submit(_call, method, *arguments).result()

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _begin(*arguments: Any) -> None:
    global _part
    _part = Part(*arguments)


def _call(method: str, *arguments: Any) -> Any:
    assert _part is not None
    return getattr(_part, method)(*arguments)


class OnRay:
    """One actor a part, on the nodes of the Ray cluster that this process is connected to."""

    def __init__(self, parts: Sequence[tuple[Any, ...]]) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"{error.name} is not installed; pip install 'soardb[ray]'"
            ) from error
        if not ray.is_initialized():
            raise Unavailable("expected a process that is part of a Ray cluster: ray.init() first")
        self._ray: Any = ray
        made: Any = ray.remote(Part)
        self._actors = [made.options(scheduling_strategy="SPREAD").remote(*p) for p in parts]

    def __len__(self) -> int:
        return len(self._actors)

    def all(self, method: str, *arguments: Any) -> list[Any]:
        """See Crew."""
        sent = [self._ray.put(argument) for argument in arguments]
        calls = [getattr(actor, method).remote(*sent) for actor in self._actors]
        return list(self._ray.get(calls))

    def one(self, number: int, method: str, *arguments: Any) -> Any:
        """See Crew."""
        return self._ray.get(getattr(self._actors[number], method).remote(*arguments))

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)


CREWS: dict[str, Callable[[Sequence[tuple[Any, ...]]], Any]] = {
    "here": Here,
    "processes": Processes,
    "ray": OnRay,
}
