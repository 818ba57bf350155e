"""Indexes under one contract.

    base.py    the contract
    flat.py    exact search
    ivf.py     SOAR: spilled IVF, 4-bit codes, re-ranking
    live.py    the index of a collection: a mapped base and a growing delta
    bundle.py  the arrays of an index as the kernels read them
    model.py   what training learns, and coding with it
    upper.py   the centroids as a search reads them
    lists.py   the packed codes of the partitions
    rows.py    ids and vectors of the rows, always dense
    stored.py  what a file of SoarIndex holds, checked
    layout.py  the options of a build, chosen by measuring on a sample
    work.py    the work of a search, counted
    plan.py    defaults and the knobs of one search

To add an index: a file here, a line in INDEXES, a line in tests/index/conftest.py.
"""

from soardb.index.base import Index
from soardb.index.flat import FlatIndex
from soardb.index.ivf import SoarIndex
from soardb.index.layout import Layout, choose_layout

__all__ = ["INDEXES", "FlatIndex", "Index", "Layout", "SoarIndex", "choose_layout"]

INDEXES: tuple[type[Index], ...] = (FlatIndex, SoarIndex)
