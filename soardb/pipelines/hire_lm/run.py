"""HiRE on a model's head, from texts alone: make a copy, calibrate it, and measure it on the rest.

    trunk.py, copies.py, head.py -> [run.py] -> soardb/cli/hiring.py

Texts are cut into windows, and windows dealt to three lots: one weighs the copy, one says how many
tokens to predict, one judges. So what is reported is of states that no choice has seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.kernels.dispatch import active
from soardb.kernels.layout import I64
from soardb.models.session import Model
from soardb.pipelines.hire_lm.copies import Copy
from soardb.pipelines.hire_lm.head import HireHead
from soardb.pipelines.hire_lm.trunk import Trunk

__all__ = ["HeadReport", "HireConfig", "fitted"]

_CLOSE = 1e-4


@dataclass(frozen=True, slots=True)
class HireConfig:
    """copied: the copy; k: logits that are kept; recall_target: of recall@k, promised.

    window  tokens of a sequence; windows: at most so many of them
    """

    copied: Copy = field(default_factory=lambda: Copy(bits=4, turned=True))
    k: int = 8
    recall_target: float = 0.99
    window: int = 64
    windows: int = 96

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        self.copied.check()
        as_int(self.k, "k", 1, 2**31)
        as_int(self.window, "window", 2, 1_000_000)
        as_int(self.windows, "windows", 3, 1_000_000)


@dataclass(frozen=True, slots=True)
class HeadReport:
    """vocabulary, width: of the head; copy: its name; k; predicted: k'.

    calibrated_recall  recall@k where k' was chosen
    recall, same_first on the lot that judges: recall@k, and how often the likeliest token is found
    judged             states of that lot
    dense_bytes, copy_bytes, row_bytes  of one state: the whole head; the copy, and k' rows
    speedup            by bytes, which is the most that a head bound by memory gains
    """

    vocabulary: int
    width: int
    copy: str
    k: int
    predicted: int
    calibrated_recall: float
    recall: float
    same_first: float
    judged: int
    dense_bytes: int
    copy_bytes: int
    row_bytes: int
    speedup: float

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def fitted(model: Model, row: I64, config: HireConfig | None = None) -> tuple[HireHead, HeadReport]:
    """A calibrated head of the model, and what it is worth on (n,) tokens of texts.

    Errors: InvalidArgument for fewer than three windows, or too few for the recall asked for.
    Costs a pass over the windows, and an exact product with the head for two thirds of them.
    """
    told = config or HireConfig()
    told.check()
    count = min(told.windows, len(row) // told.window)
    if count < 3:
        raise InvalidArgument(
            f"expected texts of at least {3 * told.window} tokens, three windows, got {len(row)}"
        )
    windows = np.ascontiguousarray(row[: count * told.window], np.int64).reshape(count, -1)
    trunk = Trunk(model)
    lots = [trunk.states(torch.from_numpy(windows[lot::3])) for lot in range(3)]
    head = HireHead(trunk.head, told.copied.make(trunk.head, lots[0]), k=told.k)
    curve = head.calibrate(lots[1], told.recall_target)
    predicted = head.predicted
    assert predicted is not None
    true, _ = active.exact_topk(trunk.head, lots[2], told.k, "dot", 1)
    found, _ = head.topk(lots[2])
    # Both are the same sums in the same order but for where rows are taken from.
    slack = _CLOSE * np.abs(true).max(axis=1)
    moved = head.traffic()
    return head, HeadReport(
        head.vocabulary,
        trunk.width,
        told.copied.name,
        told.k,
        predicted,
        float(curve.recall[np.searchsorted(curve.predicted, predicted)]),
        float((found >= (true[:, -1] - slack)[:, None]).mean()),
        float((found[:, 0] >= true[:, 0] - slack).mean()),
        len(lots[2]),
        moved.dense,
        moved.estimate,
        moved.rescore,
        moved.speedup,
    )
