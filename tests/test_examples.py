"""Every example runs as a reader would run it, and so do the programs of the README.

examples/*.py, README.md -> [test_examples.py]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import Served

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ASKS_A_SERVER, ASKS_RAY = {"client", "language_models"}, {"cluster"}


def run(file: Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", str(file), *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """In a folder of its own; an example that is broken teaches the wrong thing."""
    if example.stem in ASKS_RAY:
        pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[ray]'")
    if example.stem not in ASKS_A_SERVER:
        assert run(example, tmp_path)
        return
    with Served(tmp_path / "db") as server:
        assert run(example, tmp_path, server.target)


def test_the_programs_of_the_readme_run(tmp_path: Path) -> None:
    """One after the other, as they stand there, but for the addresses."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[ray]'")
    readme = (ROOT / "README.md").read_text("utf-8")
    programs = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len(programs) >= 2
    with Served(tmp_path / "served") as server:
        text = "\n".join(programs).replace("grpc://127.0.0.1:7600", server.target)
        text = text.replace("ray://auto", "ray://local")  # nobody has begun one here
        (tmp_path / "program.py").write_text(text)
        assert "exact on matches" in run(tmp_path / "program.py", tmp_path)
