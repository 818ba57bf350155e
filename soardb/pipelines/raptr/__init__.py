"""RaPTr: pretraining by random parts of a network that grow from stage to stage.

schedule.py     "6-8-10-12": stages, equal or proportional
paths.py        which layers run: so many, or each with a probability; the first and last always
widths.py       layers that run in part: some heads and hidden units
subnetwork.py   a part of a decoder runs and the rest costs nothing; how layers are scaled meanwhile
config.py       all of it as plain values
plans.py        what runs at each step
baselines.py    full, at equal steps and at equal cost; stacking, dropping, one depth throughout
probes.py       what leaving out a layer does; what a new stage does to the loss
log.py          evaluations, transitions, cost and time of each step
run.py          the training, with checkpoints
theory.py       why a new stage does not upset a network, at random weights
polynomial.py   a toy in which the order of depths matters
"""

from soardb.pipelines.raptr.config import METHODS, RaptrConfig
from soardb.pipelines.raptr.log import Evaluation, Log
from soardb.pipelines.raptr.paths import Paths
from soardb.pipelines.raptr.plans import Plan, RandomPlan
from soardb.pipelines.raptr.probes import Sensitivity, Transition, sensitivities
from soardb.pipelines.raptr.run import Pretrained, run
from soardb.pipelines.raptr.schedule import Schedule, Stage
from soardb.pipelines.raptr.subnetwork import SCALES, Subnetwork, hidden_of, loss_of

__all__ = [
    "METHODS",
    "SCALES",
    "Evaluation",
    "Log",
    "Paths",
    "Plan",
    "Pretrained",
    "RandomPlan",
    "RaptrConfig",
    "Schedule",
    "Sensitivity",
    "Stage",
    "Subnetwork",
    "Transition",
    "hidden_of",
    "loss_of",
    "run",
    "sensitivities",
]
