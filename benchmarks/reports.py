"""How a benchmark of the pipelines reports: from what its figures come, and two files of them.

    provenance.py -> [reports.py] -> bench_decide.py, bench_diagnose.py, bench_distillspec.py, ...

The commit is asked for by the benchmark when it starts, as the checkout may change meanwhile.
"""

from __future__ import annotations

import datetime
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import provenance

__all__ = ["grid", "header", "written"]


def header(benchmark: str, commit: str, setup: Any, modules: Sequence[str]) -> dict[str, Any]:
    """From where figures come: commit, machine, date, setup (a dataclass), versions of modules."""
    return {
        "benchmark": benchmark,
        "commit": commit,
        "machine": provenance.machine(),
        "date": datetime.date.today().isoformat(),
        "setup": asdict(setup),
        "versions": {name: importlib.import_module(name).__version__ for name in modules},
    }


def grid(name: str, rows: Sequence[Mapping[str, Any]], digits: int = 3) -> list[str]:
    """Lines of Markdown: a heading, and a table of all that any row has; floats in short."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["", f"### {name}", "", "| " + " | ".join(keys) + " |",
             "| " + " | ".join("---" for _ in keys) + " |"]  # fmt: skip
    for row in rows:
        cells = [row.get(key, "") for key in keys]
        shown = [f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell) for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return lines


def written(
    report: Mapping[str, Any], table: Callable[[Mapping[str, Any]], str], stem: Path, seeds: int
) -> None:
    """Write the report as JSON and as a table beside it, and say so."""
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    stem.with_suffix(".md").write_text(table(report), "utf-8")
    print(f"written: {stem.name}.json, .md, of {seeds} seeds", flush=True)
