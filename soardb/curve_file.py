"""The file of a generation's curves: written beside it, and read again if it is whole and its own.

    contents.py, promises.py -> [curve_file.py] -> curve.py, storage/format.py

Curves are derived. A file that is missing, damaged or another generation's counts as none, and the
log says so once: the curves are then measured anew.
"""

from __future__ import annotations

import logging
from pathlib import Path

from soardb.curve import Curves
from soardb.errors import CorruptStorage, NotFound
from soardb.storage.format import Mapped, read_arrays, write_arrays

__all__ = ["curve_path", "read_curves", "write_curves"]

_KIND = "recall-curves"
_log = logging.getLogger("soardb")


def curve_path(generation: Path) -> Path:
    """Where the curves of a generation's file lie."""
    return generation.with_suffix(".curves")


def write_curves(generation: Mapped, curves: Curves) -> None:
    """Write the curves of a generation, whole or not at all. Errors: OutOfSpace by the caller."""
    parameters = {"generation": generation.checksum, "curves": curves.to_json()}
    write_arrays(curve_path(Path(generation.path)), _KIND, parameters, {})


def read_curves(generation: Mapped) -> Curves | None:
    """The curves that were written for this generation; None where there are no sound ones."""
    path = curve_path(Path(generation.path))
    try:
        parameters, _ = read_arrays(path, _KIND)
        if parameters["generation"] != generation.checksum:
            raise CorruptStorage(f"{path}: the curves of another generation")
        return Curves.of_json(parameters["curves"])
    except NotFound:
        return None
    except (CorruptStorage, KeyError, TypeError, ValueError) as error:
        _log.warning("%s: no curves of recall, they are measured anew: %s", path, error)
        return None
