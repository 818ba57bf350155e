"""Indexes under one contract.

    base.py   the contract
    flat.py   exact search
    ivf.py    SOAR: spilled IVF, 4-bit codes, re-ranking
    rows.py   ids and vectors of the rows, always dense
    lists.py  the packed codes of the partitions
    plan.py   defaults and the knobs of one search

To add an index: a file here, a line in INDEXES, a line in tests/index/conftest.py.
"""

from soardb.index.base import Index
from soardb.index.flat import FlatIndex
from soardb.index.ivf import SoarIndex

__all__ = ["INDEXES", "FlatIndex", "Index", "SoarIndex"]

INDEXES: tuple[type[Index], ...] = (FlatIndex, SoarIndex)
