"""An ensemble from a file of predictions, and labels from the file or from a collection.

    .npz files, collections -> [source.py] -> ensemble.py

A file holds logits or probabilities, (m, n, c), and may hold labels and ids, (n,). Nothing in it is
executed, so arrays of Python objects are refused.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.diagnose.ensemble import Ensemble
from soardb.points import as_point_ids
from soardb.schema import PointId, shown

__all__ = ["labels_of", "of_file"]

_NAMES = ("logits", "probabilities", "labels", "ids")


def of_file(
    path: str | os.PathLike[str], collection: Any = None, label_field: str | None = None
) -> Ensemble:
    """The ensemble of an .npz file.

    collection, label_field  where the labels are, if not in the file: a payload field of the points
                             with the file's ids; whole numbers in 0..c-1

    Errors: NotFound, InvalidArgument.
    """
    held = _arrays(Path(path))
    both = [name for name in ("logits", "probabilities") if name in held]
    if len(both) != 1:
        names = ", ".join(held) or "none"
        raise InvalidArgument(f"expected logits or probabilities in {Path(path).name}, got {names}")
    ids = as_point_ids(held["ids"]) if "ids" in held else None
    if (label_field is None) == ("labels" not in held):
        raise InvalidArgument(
            f"expected labels in {Path(path).name} or a label field, got "
            + ("both" if label_field is not None else "neither")
        )
    if label_field is None:
        labels: Any = held["labels"]
    else:
        if collection is None or ids is None:
            raise InvalidArgument("expected a collection, and ids in the file, with a label field")
        labels = labels_of(collection, ids, label_field)
    make = Ensemble.of_logits if both == ["logits"] else Ensemble.of_probabilities
    return make(held[both[0]], labels, ids)


def labels_of(collection: Any, ids: Sequence[PointId], label_field: str) -> list[int]:
    """A payload field of points, whole numbers. Errors: NotFound, InvalidArgument."""
    out = []
    for first in range(0, len(ids), 1000):
        some = ids[first : first + 1000]
        for point_id, point in zip(some, collection.get(some), strict=True):
            if point is None:
                raise NotFound(f"expected a point for each sample, there is none with {point_id!r}")
            label = (point.payload or {}).get(label_field)
            if isinstance(label, bool) or not isinstance(label, int):
                raise InvalidArgument(
                    f"expected a whole number in {label_field!r} of every point, got "
                    f"{shown(label)} for {point_id!r}"
                )
            out.append(label)
    return out


def _arrays(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NotFound(f"expected a file of predictions, there is none at {path}")
    with path.open("rb") as file:  # closed whatever NumPy makes of it
        try:
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.lib.npyio.NpzFile):
                with held:
                    return {name: held[name] for name in _NAMES if name in held}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidArgument(
                f"expected an .npz file of numbers, {path.name}: {error}"
            ) from error
    raise InvalidArgument(
        f"expected an .npz with several arrays, got one array in {path.name}; "
        "numpy.savez(file, logits=..., labels=...) makes one"
    )
