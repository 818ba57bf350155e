"""Tandem: a small decoder that writes with the large one's view of all blocks before.

model.py    both in one pass, for training
session.py  both at work: writing alone, and drafting for the large one
router.py   when to stop drafting
run.py      training, quality, and the baseline of the small one alone
"""

from soardb.pipelines.tandem.model import MAPS, LayerMap, Tandem, block_mask, layer_map
from soardb.pipelines.tandem.router import Router
from soardb.pipelines.tandem.run import (
    Quality,
    TandemConfig,
    distil_alone,
    quality,
    run,
    train_router,
)
from soardb.pipelines.tandem.session import (
    PrimaryModel,
    PrimarySession,
    TandemDrafter,
    Written,
    write,
)

__all__ = [
    "MAPS",
    "LayerMap",
    "PrimaryModel",
    "PrimarySession",
    "Quality",
    "Router",
    "Tandem",
    "TandemConfig",
    "TandemDrafter",
    "Written",
    "block_mask",
    "distil_alone",
    "layer_map",
    "quality",
    "run",
    "train_router",
    "write",
]
