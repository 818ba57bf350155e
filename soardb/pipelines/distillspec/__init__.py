"""DistillSpec: a draft is trained towards its target, and measured against it.

run.py          the trainer: whose texts, which divergence
divergences.py  KL both ways, Jensen-Shannon, total variation
measure.py      acceptance, block efficiency, and the time that it should save
pairs.py        the same of any two models of a registry, prompt by prompt
"""

from soardb.pipelines.distillspec.divergences import DIVERGENCES, Divergence, divergence
from soardb.pipelines.distillspec.measure import (
    Agreement,
    Cost,
    agreement,
    cost_of,
    expected_blocks,
    iid_tau,
    metrics_of,
)
from soardb.pipelines.distillspec.pairs import evaluated
from soardb.pipelines.distillspec.run import PRESETS, DistillConfig, Distilled, run

__all__ = [
    "DIVERGENCES",
    "PRESETS",
    "Agreement",
    "Cost",
    "DistillConfig",
    "Distilled",
    "Divergence",
    "agreement",
    "cost_of",
    "divergence",
    "evaluated",
    "expected_blocks",
    "iid_tau",
    "metrics_of",
    "run",
]
