"""ann-benchmarks from nothing to its plot: environment, checkout, data, its own main program.

    harnesses.py, soardb/, soardb_grpc/, run_local.py -> [bench.py] -> a PNG in benchmarks/results

    python -m benchmarks.ann_benchmarks.bench --dataset glove6b-100-angular --runs 3

Both modules run, embedded and through gRPC, one after the other on one core. The checkout stays in
the cache folder with its results, which the next run replaces. Unknown options go to
ann-benchmarks.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import datasets
from benchmarks.environment import cache_folder
from benchmarks.harnesses import ROOT, environment

HERE = Path(__file__).resolve().parent
URL, COMMIT = (
    "https://github.com/erikbern/ann-benchmarks",
    "f402b2cc17b980d7cd45241ab5a7a4cc0f965e55",
)
MODULES = ("soardb", "soardb_grpc")
PACKAGES = (
    *("ansicolors", "docker", "h5py", "matplotlib", "numpy"),
    *("psutil", "pyyaml", "requests", "scikit-learn"),
)


def checkout(source: str) -> Path:
    """A clone of ann-benchmarks with our modules in it."""
    folder = cache_folder() / "ann-benchmarks"
    if not folder.exists():
        subprocess.run(["git", "clone", "-q", source, folder], check=True)
        subprocess.run(["git", "-C", folder, "checkout", "-q", COMMIT], check=True)
    for name in MODULES:
        target = folder / "ann_benchmarks" / "algorithms" / name
        shutil.copytree(HERE / name, target, dirs_exist_ok=True)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both modules and plot them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ann_benchmarks.bench",
        description="ann-benchmarks with soardb embedded and served.",
    )
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--core", default="1", help="the one that everything runs on")
    parser.add_argument("--runs", default="3", help="the best one counts")
    parser.add_argument("--source", default=URL, help="ann-benchmarks to clone, a folder too")
    parser.add_argument("--batch", action="store_true", help="all queries at once, on all cores")
    parser.add_argument("--scale", default="logit", help="of recall; linear where all of it is 1")
    parser.add_argument("--output", type=Path, help="the plot")
    given, more = parser.parse_known_args(arguments)
    python = str(environment("ann-benchmarks", "server", PACKAGES))
    datasets.load(given.dataset)
    folder = checkout(given.source)
    link = folder / "data" / f"{given.dataset}.hdf5"
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(cache_folder().resolve() / link.name)
    mode = ["--batch"] if given.batch else []
    run = [python, str(HERE / "run_local.py"), *mode, *([] if mode else ["--core", given.core])]
    run += ["--local", "--force", "--definitions", str(HERE), "--dataset", given.dataset]
    subprocess.run([*run, "--runs", given.runs, *more], check=True, cwd=folder)
    name = f"ann-benchmarks-{given.dataset}{'-batch' if mode else ''}.png"
    output = (given.output or ROOT / "benchmarks" / "results" / name).resolve()
    plot = [python, "plot.py", "--dataset", given.dataset, "-x", "k-nn", "-y", "qps"]
    plot += ["-X", given.scale, "-Y", "log", "-o", str(output), *mode]
    subprocess.run(plot, check=True, cwd=folder)
    print(output)


if __name__ == "__main__":
    main()
