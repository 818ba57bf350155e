"""Run ann-benchmarks on HDF5 files of one's own, without Docker, on one core.

    data/*.hdf5 of a checkout of ann-benchmarks -> [run_local.py] -> its own run.py

Its command line knows the data sets of its table alone. This adds a line for each file under
data/, then hands over to the stock main function, whose options it takes:

    cd ann-benchmarks
    python <soardb>/benchmarks/ann_benchmarks/run_local.py --core 1 \
        --local --dataset NAME --algorithm soardb

--core binds the worker to one core and one thread, as the container of a normal run would. The
driver stays free: a worker gives up on a queue that is not filled yet, which on a shared core is
the rule, so workers also start with a moment of patience.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

PATIENCE_S = 1.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def register(folder: Path) -> None:
    """Make each *.hdf5 of the folder a data set under its own name; known names stay theirs."""
    from ann_benchmarks.datasets import DATASETS

    for path in sorted(folder.glob("*.hdf5")):
        DATASETS.setdefault(path.stem, _refuse)


def _refuse(path: str) -> None:
    """Stand where ann-benchmarks keeps the function that makes a data set which is not there."""
    raise FileNotFoundError(f"{path} was there at the start and is gone; put it back")


def settle_workers(core: int | None) -> None:
    """Let every process that is forked from here on wait a moment, and bind it to the core."""

    def settle() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        time.sleep(PATIENCE_S)

    os.register_at_fork(after_in_child=settle)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--core", type=int)
    ours, theirs = parser.parse_known_args()
    if not Path("ann_benchmarks", "main.py").exists():
        sys.exit(f"run this inside a checkout of ann-benchmarks; {os.getcwd()} is none")
    if ours.core is not None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    sys.argv[1:] = theirs
    sys.path[0] = os.getcwd()  # its packages, not the folder of this file
    from ann_benchmarks.main import main as run

    register(Path("data"))
    settle_workers(ours.core)
    run()


if __name__ == "__main__":
    main()
