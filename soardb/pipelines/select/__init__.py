"""Which k of n points to label or train on: weighted k-center and what it is compared with.

run.py          run(points, SelectConfig) -> Selection
source.py       collections and arrays; uncertainty.py their weights
space.py        points in a true metric
gonzalez.py     greedy k-center
wkc.py          weighted k-center; balls.py finds its balls by an index
parts.py        the same over several machines; crew.py those machines
baselines.py    random, facility location, GIST
certificate.py  what a selection is worth
plot.py         pictures of one
"""

from soardb.pipelines.select.certificate import Certificate
from soardb.pipelines.select.run import METHODS, SelectConfig, Selection, run
from soardb.pipelines.select.source import Source, read
from soardb.pipelines.select.uncertainty import softmax, votes, weights_of

__all__ = [
    "METHODS",
    "Certificate",
    "SelectConfig",
    "Selection",
    "Source",
    "read",
    "run",
    "softmax",
    "votes",
    "weights_of",
]
