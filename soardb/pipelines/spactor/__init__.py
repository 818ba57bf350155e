"""SpacTor: a T5 is pretrained by two tasks at once, and after a while by one alone.

spans.py      span corruption: what is left out of a text, and is to be written
masks.py      which other tokens are replaced
generator.py  the small encoder whose guesses replace them
head.py       which tokens were replaced, and the area under that curve
objective.py  the three losses, and what is left of them in comparisons
flops.py      operations of what ran
measure.py    span corruption on clean inputs; generator and head
run.py        the trainer: two stages, one optimiser
plot.py       the losses of a training as a picture
classify.py   what a pretrained encoder is worth: fine-tuned on a few labelled texts
"""

from soardb.pipelines.spactor.classify import Classifier, fine_tuned
from soardb.pipelines.spactor.generator import Generator, GeneratorConfig
from soardb.pipelines.spactor.head import HeadKind, ReplacedHead, area
from soardb.pipelines.spactor.masks import is_text, masked
from soardb.pipelines.spactor.measure import Detection, clean_loss, detection
from soardb.pipelines.spactor.objective import (
    OBJECTIVES,
    Lesson,
    Noised,
    Objective,
    ObjectiveConfig,
    SpacTor,
)
from soardb.pipelines.spactor.run import Look, Pretrained, SpactorConfig, run
from soardb.pipelines.spactor.spans import Corrupted, Spans, corrupted, span_counts, span_mask

__all__ = [
    "OBJECTIVES",
    "Classifier",
    "Corrupted",
    "Detection",
    "Generator",
    "GeneratorConfig",
    "HeadKind",
    "Lesson",
    "Look",
    "Noised",
    "Objective",
    "ObjectiveConfig",
    "Pretrained",
    "ReplacedHead",
    "SpacTor",
    "SpactorConfig",
    "Spans",
    "area",
    "clean_loss",
    "corrupted",
    "detection",
    "fine_tuned",
    "is_text",
    "masked",
    "run",
    "span_counts",
    "span_mask",
]
