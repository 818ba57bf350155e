"""What is told of a model and of a pair of them: plain values, the same in a registry and a client.

    registry.py, soardb_client -> [info.py]

Nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["ModelInfo", "ModelPair"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the registry lists it.

    architecture  "decoder", "t5", "encoder", or one of HUGGING
    config        of our own; of Hugging Face its config.json
    parameters    how many numbers the weights are
    metrics       what was measured, by name
    lineage       where it comes from: method, parent, data, seed, whatever the maker told
    files         {name: {"bytes", "sha256"}}
    created       seconds since 1970
    """

    name: str
    architecture: str
    config: dict[str, Any]
    parameters: int
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(int(one["bytes"]) for one in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ModelPair:
    """A draft that was measured with a target: acceptance and whatever else, by name."""

    target: str
    draft: str
    metrics: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
