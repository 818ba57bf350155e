"""Top-k as an operator of its own: exact, approximate at a stated recall, predicted, over shards.

operator.py   topk, approx_topk: scores in, the best of them out
plan.py       the expected recall of buckets, and the cheapest buckets for a recall
estimator.py  Quantized and LowRank: cheap copies of vectors that predict scores
hire.py       predict, gather, score again exactly; how many to predict for a recall
shards.py     DA-TOP-k: the merge of what shards answer, and how much to ask of each

    soardb.topk -> kernels

    from soardb.topk import approx_topk, topk
    scores, ids = topk(rows, k=10)
    found = approx_topk(rows, k=1000, recall_target=0.95)
"""

from __future__ import annotations

from soardb.topk.estimator import Estimator, LowRank, Quantized
from soardb.topk.hire import Calibration, Hire, Traffic, traffic
from soardb.topk.operator import ApproxTopk, approx_topk, topk
from soardb.topk.plan import TopkPlan, expected_recall, plan_topk
from soardb.topk.shards import (
    ShardPlan,
    chernoff_bound,
    loss_bound,
    merge_topk,
    plan_shards,
    simulate_shards,
)

__all__ = [
    "ApproxTopk",
    "Calibration",
    "Estimator",
    "Hire",
    "LowRank",
    "Quantized",
    "ShardPlan",
    "TopkPlan",
    "Traffic",
    "approx_topk",
    "chernoff_bound",
    "expected_recall",
    "loss_bound",
    "merge_topk",
    "plan_shards",
    "plan_topk",
    "simulate_shards",
    "topk",
    "traffic",
]
