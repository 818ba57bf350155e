"""Every example runs as a reader would run it, and so do the programs of the README.

examples/*.py, README.md -> [test_examples.py]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(file: Path, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-P", str(file)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """In a folder of its own; an example that is broken teaches the wrong thing."""
    assert run(example, tmp_path)


def test_the_programs_of_the_readme_run(tmp_path: Path) -> None:
    """One after the other, as they stand there."""
    readme = (ROOT / "README.md").read_text("utf-8")
    programs = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len(programs) >= 2
    (tmp_path / "program.py").write_text("\n".join(programs))
    assert "exact on matches" in run(tmp_path / "program.py", tmp_path)
