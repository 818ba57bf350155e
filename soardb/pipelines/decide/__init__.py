"""Which answer to give under a predictive distribution: the one that is best for the metric.

run.py         run(Laws or collection, DecideConfig) -> Decisions
laws.py        distributions from samples, closed sets, probabilities
neighbours.py  distributions from the labels stored near to a query
language.py    a language model's scores and samples
rules.py       the decision of least expected loss
metrics.py     metrics by name, each with its rule
scores.py      how good the distributions are themselves
compare.py     rules by metrics on known answers, and how many samples are needed
training.py    losses to train with
estimators.py  scikit-learn's face
plot.py        pictures of comparisons
"""

from soardb.pipelines.decide.compare import Table, compare, controls, sweep
from soardb.pipelines.decide.language import draw, score
from soardb.pipelines.decide.laws import Laws
from soardb.pipelines.decide.metrics import (
    METRICS,
    Metric,
    as_metric,
    auc,
    cost,
    f1,
    of_loss,
    pinball,
    token_overlap,
)
from soardb.pipelines.decide.neighbours import Near, calibrated, near
from soardb.pipelines.decide.run import DecideConfig, Decisions, run, trial
from soardb.pipelines.decide.training import mbr_loss, raft_loss

__all__ = [
    "METRICS",
    "DecideConfig",
    "Decisions",
    "Laws",
    "Metric",
    "Near",
    "Table",
    "as_metric",
    "auc",
    "calibrated",
    "compare",
    "controls",
    "cost",
    "draw",
    "f1",
    "mbr_loss",
    "near",
    "of_loss",
    "pinball",
    "raft_loss",
    "run",
    "score",
    "sweep",
    "token_overlap",
    "trial",
]
