"""Measure an index: what it should have found, what it found, how fast, in how much memory.

recall.py      ground truth, recall@k with ties
partitions.py  k-means recall against points read; angles between the residuals of a vector
speed.py       latency of single queries, and its curve against recall
memory.py      bytes per vector by part
plots.py       the figures; matplotlib is imported when one is drawn
"""

from soardb.evaluate.memory import bytes_per_vector
from soardb.evaluate.partitions import (
    KMeansRecall,
    ResidualAngles,
    ScoreErrors,
    kmeans_recall,
    residual_angles,
    score_errors,
)
from soardb.evaluate.plots import (
    plot_kmeans_recall,
    plot_layouts,
    plot_memory,
    plot_recall_qps,
    plot_residual_angles,
)
from soardb.evaluate.recall import Recall, exact_scores, ground_truth, recall_at_k
from soardb.evaluate.speed import CurvePoint, Exam, Timing, search_curve, time_queries

__all__ = [
    "CurvePoint",
    "Exam",
    "KMeansRecall",
    "Recall",
    "ResidualAngles",
    "ScoreErrors",
    "Timing",
    "bytes_per_vector",
    "exact_scores",
    "ground_truth",
    "kmeans_recall",
    "plot_kmeans_recall",
    "plot_layouts",
    "plot_memory",
    "plot_recall_qps",
    "plot_residual_angles",
    "recall_at_k",
    "residual_angles",
    "score_errors",
    "search_curve",
    "time_queries",
]
