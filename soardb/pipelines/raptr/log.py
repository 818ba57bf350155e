"""What happened in a training: evaluations, transitions, and what each step ran and cost.

    [log.py] -> run.py, benchmarks

It goes with the checkpoint, so a training that was taken up again has one log.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from soardb.pipelines.raptr.probes import Transition

__all__ = ["Evaluation", "Log"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """loss of the whole network after `steps`, in nats a token; what they cost in all."""

    steps: int
    flops: int
    seconds: float
    loss: float


class Log:
    """Of one training.

    ran      layers that ran in each step
    seconds  of the processor that each took, there and back with the optimiser's part
    flops    of all steps, counted as models/flops.py does; evaluations are not among them
    """

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []
        self.transitions: list[Transition] = []
        self.ran: list[int] = []
        self.seconds: list[float] = []
        self.flops = 0
        self._began: float | None = None

    def begin_step(self, layers: int, flops: int) -> None:
        """A step begins that runs so many layers."""
        self.ran.append(layers)
        self.flops += flops
        self._began = time.process_time()

    def end_step(self) -> None:
        """The step that began is done, if one has begun."""
        if self._began is not None:
            self.seconds.append(time.process_time() - self._began)
            self._began = None

    def evaluated(self, steps: int, loss: float) -> None:
        """The whole network has this loss now."""
        self.evaluations.append(Evaluation(steps, self.flops, sum(self.seconds), loss))

    def step_ms(self) -> dict[int, float]:
        """By the number of layers that ran: the median of a step, in ms."""
        by: dict[int, list[float]] = {}
        for layers, seconds in zip(self.ran, self.seconds, strict=True):
            by.setdefault(layers, []).append(seconds)
        return {layers: 1000 * statistics.median(by[layers]) for layers in sorted(by)}

    def state(self) -> dict[str, Any]:
        """As JSON."""
        self.end_step()
        return {
            "evaluations": [asdict(one) for one in self.evaluations],
            "transitions": [asdict(one) for one in self.transitions],
            "ran": self.ran,
            "seconds": self.seconds,
            "flops": self.flops,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be again what state() said."""
        self.evaluations = [Evaluation(**one) for one in state["evaluations"]]
        self.transitions = [
            Transition(**{**one, "changes": tuple(one["changes"])}) for one in state["transitions"]
        ]
        self.ran, self.seconds = list(state["ran"]), list(state["seconds"])
        self.flops = state["flops"]
