"""How tests are divided among processes: a file stays together, and all that need Ray do.

    pytest-xdist (`make test`) -> [conftest.py]

Fixtures of a file, such as a server, are then made once, and so is the Ray cluster.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# PyTorch's threads, of each of the processes, would be in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TOGETHER = Path(__file__).parent / "cluster"
APART = Path(__file__).parent / "test_examples.py"  # long tests that share nothing fill the end


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of each test, for --dist loadgroup."""
    for item in items:
        if item.path == APART:
            continue
        group = "ray" if item.path.is_relative_to(TOGETHER) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
