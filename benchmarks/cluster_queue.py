"""Calls that fan out to many queues and wait for the last answer: a simulation in NumPy.

    [cluster_queue.py] -> cluster_sim.py

A call comes by a Poisson process, waits for its driver, goes to every shard in a message of its
own, waits there for one of the cores of the shard's host, and ends when the driver has taken the
last answer. All queues are first come, first served. Calls are the same for all shards, so queues
of different shards are as dependent as they are in truth: nothing is assumed about that.

Nothing here knows what a call costs: times in, times out, in seconds throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Costs", "Hosts", "Lognormal", "gathered", "simulate", "waits"]

F64 = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], F64]

_CHUNK = 256  # calls whose times are drawn at once; of a thousand shards 2 MiB an array


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Times of a mean and a shape; sigma 0 is the mean itself."""

    mean: float
    sigma: float

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> F64:
        if not self.sigma:
            return np.full(shape, self.mean)
        drawn = rng.lognormal(-(self.sigma**2) / 2, self.sigma, shape)
        return np.asarray(self.mean * drawn)

    def of_sum(self, count: int) -> Lognormal:
        """The sum of so many independent ones, as a lognormal of the same mean and variance."""
        squared = float(np.expm1(self.sigma**2)) / count
        return Lognormal(self.mean * count, float(np.log1p(squared)) ** 0.5)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a call takes, in seconds.

    send, receive  of the driver for one message and for one answer
    around         of the driver for a call whatever the shards: checks before, the merge after
    wire           one way of a message, drawn (calls, hosts, shards of a host)
    service        of a core of the host for one message, drawn likewise
    """

    send: float
    receive: float
    around: float
    wire: Draw
    service: Draw

    def driver_s(self, shards: int) -> float:
        """Processor time of the driver for one call."""
        return self.around + shards * (self.send + self.receive)


class Hosts:
    """Queues of hosts that each have some cores, first come first served."""

    def __init__(self, hosts: int, cores: int) -> None:
        self._free: F64 = np.zeros((hosts, cores))
        self._rows = np.arange(hosts)

    def finish(self, arrive: F64, service: F64) -> F64:
        """When each task ends. arrive, service (hosts,): one task a host, in order of time."""
        if self._free.shape[1] == 1:
            done = np.maximum(arrive, self._free[:, 0]) + service
            self._free[:, 0] = done
            return np.asarray(done)
        core = self._free.argmin(axis=1)
        done = np.maximum(arrive, self._free[self._rows, core]) + service
        self._free[self._rows, core] = done
        return np.asarray(done)


def waits(arrivals: F64, service: F64, servers: npt.NDArray[np.int64], count: int) -> F64:
    """(m,) how long each of m waits for its own single server. arrivals rise."""
    free, out = np.zeros(count), np.empty(len(arrivals))
    for i, server in enumerate(servers.tolist()):
        begin = max(arrivals[i], free[server])
        out[i] = begin - arrivals[i]
        free[server] = begin + service[i]
    return out


def gathered(answers: F64, receive: float) -> F64:
    """(m,) when one who takes `receive` for each answer has taken all of (m, s), as they come."""
    s = answers.shape[1]
    ordered = np.sort(answers, axis=1)
    left = receive * np.arange(s, 0, -1, dtype=np.float64)
    return np.asarray((ordered + left).max(axis=1))


def simulate(
    costs: Costs,
    *,
    hosts: int,
    shards_per_host: int,
    cores: int,
    drivers: int,
    rate: float,
    calls: int,
    seed: int,
) -> F64:
    """(calls,) seconds from when a call comes to when its answer is there.

    rate     calls a second, of all drivers; 0: each call finds everything idle
    drivers  who each work on one message at a time; calls are dealt out at random

    The first tenth warms up and is not returned, but is simulated on top of `calls`.
    """
    rng = np.random.default_rng(seed)
    shards, warm = hosts * shards_per_host, calls // 10
    count = calls + warm
    taken = costs.driver_s(shards)
    if rate:
        arrivals = np.cumsum(rng.exponential(1 / rate, count))
        waited = waits(arrivals, np.full(count, taken), rng.integers(0, drivers, count), drivers)
    else:
        arrivals, waited = np.zeros(count), np.zeros(count)
    begun = arrivals + waited
    # Half of what is done around a call comes before its messages.
    sent = costs.around / 2 + costs.send * np.arange(1, shards + 1)
    sent = sent.reshape(shards_per_host, hosts).T  # dealt to hosts in turn
    queues, out = Hosts(hosts, cores), np.empty(count)
    for first in range(0, count, _CHUNK):
        size = min(_CHUNK, count - first)
        shape = (size, hosts, shards_per_host)
        arrive = begun[first : first + size, None, None] + sent + costs.wire(rng, shape)
        service, back = costs.service(rng, shape), costs.wire(rng, shape)
        done = np.empty(shape)
        for i in range(size):
            if not rate:
                queues = Hosts(hosts, cores)
            for j in range(shards_per_host):
                done[i, :, j] = queues.finish(arrive[i, :, j], service[i, :, j])
        # Answers are taken once all messages are sent.
        answers = np.maximum(
            (done + back).reshape(size, -1),
            (begun[first : first + size] + float(sent.max()))[:, None],
        )
        ended = gathered(answers, costs.receive) + costs.around / 2
        out[first : first + size] = ended - arrivals[first : first + size]
    return out[warm:]
