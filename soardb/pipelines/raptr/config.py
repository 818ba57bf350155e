"""What a RaPTr training, or one of its baselines, is made of: plain values, checked.

schedule.py, paths.py, subnetwork.py -> [config.py] -> baselines.py, run.py
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.training import TrainConfig
from soardb.options import as_number
from soardb.pipelines.raptr.paths import Kind, Paths
from soardb.pipelines.raptr.schedule import Lengths, Schedule, sizes_of
from soardb.pipelines.raptr.subnetwork import SCALES, Scale
from soardb.pipelines.raptr.widths import Widths

__all__ = ["METHODS", "Method", "Moments", "RaptrConfig", "Skipped"]

Method = Literal["random", "stacking", "dropping"]
METHODS: tuple[Method, ...] = get_args(Method)
Skipped = Literal["frozen", "decayed"]
Moments = Literal["fresh", "copied"]


@dataclass(frozen=True, slots=True)
class RaptrConfig:
    """How the part that learns grows.

    The published text was not at hand: what it does not settle in its abstract, its reviews or its
    figures is a value here, "not verified against the paper".

    depths   layers of each stage, on average: "4-5-7-8"; "8" is the whole network of 8 throughout
    lengths  of the stages, equal or proportional to their number
    warm_up  steps with the whole network before the first stage: the paper's option for its largest
             model; where its steps come from is not verified against the paper
    fixed    layers, from 0 on, that always run; the first and the last unless told, as in the paper
    paths    "exact": always as many layers as the stage says; "bernoulli": each with a probability.
             The paper defines the latter; which its runs took is not verified against the paper
    scale    of layers while others are left out, see subnetwork.SCALES; not verified against the
             paper
    heads    heads of each stage, "1-2-3-4", as many stages as depths has: the width variant, with
             the same share of the hidden units; none unless told. Not verified against the paper
    fixed_whole  of that variant: fixed layers run with all heads and units; not verified against
             the paper
    skipped  what becomes of the optimiser's moments of layers that do not run: "frozen", untouched,
             their weights too; "decayed", as with a gradient of zero, so the weights go on by
             momentum and decay. Not verified against the paper. Heads and units that do not run in
             a layer that does have a gradient of zero either way
    method   "random" is RaPTr; "stacking" and "dropping" are baselines, see baselines.py
    moments  of "stacking": those of a copied layer begin "fresh", or are "copied" too; not verified
             against the paper
    limit, speed  of "dropping": the lowest share that is kept, and how fast it is come to
    evaluate_every  steps between two evaluations of the whole network; probe_paths: how many random
             paths stand for a stage in the log of transitions
    train    steps, batch, window and rate. One schedule of the rate for all stages, without a new
             rise; not verified against the paper. train.seed is that of windows and paths
    """

    depths: str = "4-5-7-8"
    lengths: Lengths = "equal"
    warm_up: int = 0
    fixed: tuple[int, ...] | None = None
    paths: Kind = "exact"
    scale: Scale = "sqrt"
    heads: str | None = None
    fixed_whole: bool = True
    skipped: Skipped = "frozen"
    method: Method = "random"
    moments: Moments = "fresh"
    limit: float = 0.5
    speed: float = 100.0
    evaluate_every: int = 100
    probe_paths: int = 4
    train: TrainConfig = field(default_factory=TrainConfig)

    def check(self, decoder: DecoderConfig) -> None:
        """InvalidArgument for what such a decoder cannot do, naming what is wrong."""
        self.train.check()
        as_int(self.evaluate_every, "evaluate_every", 1, 100_000_000)
        as_int(self.probe_paths, "probe_paths", 1, 10_000)
        choices = {"scale": SCALES, "method": METHODS, "skipped": get_args(Skipped),
                   "moments": get_args(Moments)}  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InvalidArgument(
                    f"expected {name} one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if not 0 < as_number(self.limit, "limit") <= 1:
            raise InvalidArgument(f"expected limit above 0 and up to 1, got {self.limit}")
        if as_number(self.speed, "speed") <= 0:
            raise InvalidArgument(f"expected speed above 0, got {self.speed}")
        if self.train.window - 1 > decoder.context:
            raise InvalidArgument(
                f"expected a window within the context of {decoder.context}, got "
                f"{self.train.window}"
            )
        paths = Paths(decoder.layers, self.fixed_of(decoder.layers), self.paths)
        for stage in self.schedule(decoder.layers).stages:
            paths.check(stage.size)
        if self.heads is not None:
            self._check_heads(decoder)
        if self.method != "random" and (self.warm_up or self.heads is not None):
            raise InvalidArgument(
                f"expected neither warm_up nor heads with method {self.method!r}, got "
                f"{self.warm_up} and {self.heads}"
            )
        if self.method == "stacking":
            self._check_stack()

    def _check_heads(self, decoder: DecoderConfig) -> None:
        heads = sizes_of(self.heads or "")
        if len(heads) != len(sizes_of(self.depths)):
            raise InvalidArgument(
                f"expected heads of as many stages as depths has, got {self.heads} and "
                f"{self.depths}"
            )
        widths = Widths(decoder)
        for count in heads:
            widths.check(count)

    def _check_stack(self) -> None:
        if (self.skipped, self.scale) != ("frozen", "none"):
            raise InvalidArgument(
                "expected skipped 'frozen' and scale 'none' with method 'stacking', as nothing is "
                f"left out of the layers that are there, got {self.skipped!r} and {self.scale!r}"
            )
        depths = sizes_of(self.depths)
        if depths != sorted(depths) or any(depth % 1 for depth in depths):
            raise InvalidArgument(
                f"expected whole depths that grow, to stack layers, got {self.depths}"
            )

    def fixed_of(self, layers: int) -> tuple[int, ...]:
        """The layers that always run, of so many."""
        return self.fixed if self.fixed is not None else tuple(sorted({0, layers - 1}))

    def schedule(self, layers: int) -> Schedule:
        """Of depths."""
        return Schedule.parsed(
            self.depths, self.train.steps, self.lengths, warm_up=self.warm_up, whole=layers
        )

    def widths(self, heads: int) -> Schedule | None:
        """Of heads, of a decoder that has so many; None without the width variant."""
        if self.heads is None:
            return None
        return Schedule.parsed(
            self.heads, self.train.steps, self.lengths, warm_up=self.warm_up, whole=heads
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
