"""What a benchmark has measured so far, so that a run that was stopped goes on where it was.

    bench_select_training.py, bench_diagnose.py -> [journal.py] -> a file of JSON lines

The first line says what was set up; a journal of something else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument

__all__ = ["Journal"]


class Journal:
    """Finished rows, a JSON line each, under a first line that is `setup`."""

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self._path = path
        wanted = json.loads(json.dumps(setup))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(wanted) + "\n", "utf-8")
        whole = path.read_text("utf-8").rpartition("\n")[0]  # without a line that was cut off
        path.write_text(whole + "\n", "utf-8")
        first, *lines = whole.splitlines()
        if json.loads(first) != wanted:
            raise InvalidArgument(
                f"expected a journal of {wanted}, {path} is of {first}; delete it to begin anew"
            )
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more line."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
