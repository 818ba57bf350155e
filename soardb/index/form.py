"""The form in which an index keeps its vectors for exact scores.

    rows.py, ivf.py, live.py, generation.py -> [form.py] -> model.py, quantization/

float32 is what was given, bfloat16 half of that, and int8 nothing beside the 8-bit rows that every
index with partitions has. Vectors are rounded to their form before anything is made of them: lists,
codes, bytes and scores are then those of the rounded vectors, and what is exact stays exact of
them.

8-bit rows need ranges that were learnt. Without a model, where every search is exact, int8 keeps
float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb.index.model import Model
from soardb.kernels.layout import F32, Metric, Precision
from soardb.kernels.reference import opened
from soardb.metrics import unit_rows
from soardb.quantization.bfloat16 import to_bfloat16
from soardb.quantization.scalar import ScalarQuantizer

__all__ = ["FLOAT32", "Form"]

_DTYPES: dict[Precision, Any] = {
    "float32": np.float32,
    "bfloat16": np.uint16,
    "int8": np.float32,  # of an array without rows
}
_NO_BYTES = ScalarQuantizer(np.empty(0, np.float32), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Form:
    """How vectors are kept; `scalar` says what the bytes of int8 stand for, the mean included.

    is_unit: under cosine what is kept of a vector stands for the unit vector of its direction.
    """

    precision: Precision = "float32"
    scalar: ScalarQuantizer = _NO_BYTES
    is_unit: bool = False

    @classmethod
    def of(cls, precision: Precision, metric: Metric, model: Model | None) -> Form:
        """The form of vectors that are coded by a model; None: there is none."""
        if precision == "float32" or (precision == "int8" and model is None):
            return FLOAT32
        scalar = _NO_BYTES
        if precision == "int8" and model is not None:
            scalar = ScalarQuantizer(model.mean + model.scalar.offset, model.scalar.scale)
        return cls(precision, scalar, metric == "cosine")

    @property
    def dtype(self) -> Any:
        """The dtype of the array "vectors"; KeyError for a precision that there is not."""
        return _DTYPES[self.precision]

    @property
    def has_vectors(self) -> bool:
        """Whether vectors are kept beside the 8-bit rows."""
        return self.precision != "int8"

    def rounded(self, vectors: F32) -> F32:
        """(n, d) vectors, as the metric compares them, number by number as they will be kept."""
        if self.precision == "float32":
            return vectors
        if self.precision == "bfloat16":
            return opened(to_bfloat16(vectors), None, None)
        return self.scalar.decode(self.scalar.encode(vectors))

    def packed(self, vectors: F32) -> np.ndarray:
        """What the array "vectors" holds of (n, d) rounded vectors."""
        return to_bfloat16(vectors) if self.precision == "bfloat16" else vectors

    def steps(self, vectors: F32) -> F32:
        """From one number that can be kept to the next, about each of (n, d) rounded ones."""
        if self.precision == "bfloat16":
            steps: F32 = np.ldexp(np.float32(1), np.frexp(vectors)[1] - 8)
            return steps
        return np.broadcast_to(self.scalar.scale, vectors.shape)

    def values(self, arrays: dict[str, np.ndarray]) -> Any:
        """Of a row's arrays the one that scores are made from: kernels.layout.Values."""
        return arrays["vectors" if self.has_vectors else "store"]

    def opened(self, values: Any) -> F32:
        """(n, d) float32 that kept values stand for: a view where they are float32."""
        vectors = opened(values, self.scalar.scale, self.scalar.offset)
        return unit_rows(vectors) if self.is_unit else vectors


FLOAT32 = Form()
"""Vectors as they were given."""
