"""What is learned from trajectories: their steps one by one, as text to read and text to write.

    trajectory.py -> [mixture.py] -> tuning.py; JSON Lines and Parquet for others

A step's target is the sample that was ranked best, else the one that was gone on from: what came
after it stays as it was (off-policy, arXiv 2312.10003, section 3).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from soardb.errors import InvalidArgument
from soardb.hits import need_pyarrow
from soardb.pipelines.agent.actions import END, STEPS, Step
from soardb.pipelines.agent.trajectory import Trajectory
from soardb.vectors_io import replacing

__all__ = ["Example", "Targets", "counts", "mixture", "write_jsonl", "write_parquet"]

Targets = Literal["ranked", "perplexity"]


@dataclass(frozen=True, slots=True)
class Example:
    """prompt: without examples; target: with END. trajectory and number: where it is from."""

    step: Step
    prompt: str
    target: str
    trajectory: str
    number: int
    question_id: str


def mixture(trajectories: Iterable[Trajectory], targets: Targets = "ranked") -> list[Example]:
    """The steps of all complete trajectories, in their order; others have none.

    targets  "ranked": the sample that was ranked best, where a step was ranked, and none where all
             were refused; "perplexity": the one that was gone on from
    """
    if targets not in ("ranked", "perplexity"):
        raise InvalidArgument(f"expected targets 'ranked' or 'perplexity', got {targets!r}")
    return [
        Example(
            step.step,
            step.prompt,
            f"{(step.target if targets == 'ranked' else step.text).strip()}  {END}\n",
            one.id,
            number,
            one.question_id,
        )
        for one in trajectories
        if one.is_complete
        for number, step in enumerate(one.steps)
        if targets == "perplexity" or step.ranking is None or step.ranking.is_good
    ]


def counts(examples: Iterable[Example]) -> dict[Step, int]:
    """How many there are of each step."""
    found = Counter(one.step for one in examples)
    return {step: found[step] for step in STEPS}


def write_jsonl(path: str | Path, examples: Sequence[Example]) -> None:
    """One object a line; whole or not at all."""
    with replacing(Path(path)) as scratch, scratch.open("w", encoding="utf-8") as file:
        for one in examples:
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")


def write_parquet(path: str | Path, examples: Sequence[Example]) -> None:
    """The same as a table. Errors: Unavailable without pyarrow."""
    pa = need_pyarrow()
    import pyarrow.parquet as parquet

    kinds: dict[str, Any] = {
        "step": pa.string(), "prompt": pa.string(), "target": pa.string(),
        "trajectory": pa.string(), "number": pa.int32(), "question_id": pa.string(),
    }  # fmt: skip
    table = pa.Table.from_pylist([asdict(one) for one in examples], schema=pa.schema(kinds))
    with replacing(Path(path)) as scratch:
        parquet.write_table(table, scratch)
