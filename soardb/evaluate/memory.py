"""What an index costs in memory, in bytes per vector and by part.

index.memory() -> [memory.py] -> cli, demo, plots.py
"""

from __future__ import annotations

from typing import Protocol

from soardb.errors import InvalidArgument


class Measured(Protocol):
    """Anything that counts its vectors and its bytes: every index does."""

    def __len__(self) -> int: ...

    def memory(self) -> dict[str, int]: ...


def bytes_per_vector(index: Measured) -> dict[str, float]:
    """Bytes a vector by part, in the order of index.memory(), and their sum as "total".

    Parts that do not grow with n (centroids, codebook) are shared out over the vectors.
    Raises InvalidArgument for an empty index.
    """
    n = len(index)
    if n == 0:
        raise InvalidArgument("an empty index has no bytes per vector; add vectors first")
    parts = {part: size / n for part, size in index.memory().items()}
    return {**parts, "total": sum(parts.values())}
