"""What all tests have in common; files are divided among processes whole (`make test`).

    pytest-xdist -> [conftest.py]

So fixtures of a file, such as a server, are made once.
"""

from __future__ import annotations

import os

# PyTorch's threads, of each of the processes, would be in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
