"""HiRE for language models: heads and feed-forward parts of which few rows are read.

copies.py  a cheap copy: bits or rank
trunk.py   a model without its head
head.py    the softmax over the vocabulary
model.py   both together, as a model that generates and drafts
mixer.py   top-k ReLU: which units are computed
run.py     a head from texts, calibrated and measured
"""

from soardb.pipelines.hire_lm.copies import Copy, Turned
from soardb.pipelines.hire_lm.head import LAWS, HireHead, Law
from soardb.pipelines.hire_lm.mixer import HireMixer, hired, inputs_of
from soardb.pipelines.hire_lm.model import HireModel, HireSession
from soardb.pipelines.hire_lm.run import HeadReport, HireConfig, fitted
from soardb.pipelines.hire_lm.trunk import Trunk

__all__ = [
    "LAWS",
    "Copy",
    "HeadReport",
    "HireConfig",
    "HireHead",
    "HireMixer",
    "HireModel",
    "HireSession",
    "Law",
    "Trunk",
    "Turned",
    "fitted",
    "hired",
    "inputs_of",
]
