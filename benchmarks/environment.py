"""What the data sets need of the machine around them: a folder, libraries, a listener.

    $SOARDB_DATA, installed libraries -> [environment.py] -> every module that makes data sets

Finished files and fetched packages share one folder, so one variable moves both. Libraries that
only a recipe needs are imported when it runs: a cached set opens with h5py alone. Whoever takes
long tells a Progress what it does and how far it is.

Nothing here knows what a data set is.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soardb.errors import Unavailable

Progress = Callable[[str, float], None]  # of a stage and the fraction of it that is done


def silent(stage: str, fraction: float) -> None:
    """Report nothing."""


def cache_folder() -> Path:
    """The folder of the finished files: $SOARDB_DATA, else ~/.cache/soardb/datasets."""
    return Path(os.environ.get("SOARDB_DATA") or Path.home() / ".cache" / "soardb" / "datasets")


def need(module: str, extra: str = "datasets") -> Any:
    """Import an optional dependency, or say which extra has it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{module} is not installed; pip install 'soardb[{extra}]'") from error
