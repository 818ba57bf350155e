"""Where the time of a query goes: each stage of a search, and the call from Python around it.

    profile_run.py -> [bench_profile.py] -> results/profile-*.json, *.md

`make profile` compiles the extension a second time, with the clocks of stages.hpp in it, and runs
this. One index is built and saved; a process that loads the compiled clocks asks it one query a
call and reads the stages, and a process with the installed extension asks the same without them,
so that what the clocks cost stands beside what they say. Recall stands beside both.

    python -m benchmarks.bench_profile --clocks build/profile --nprobe 40 --rerank 110
    python -m benchmarks.bench_profile --dataset wordnet-minilm-384-angular --nlist 1000

Without --clocks there are no stages: time is then split by differences of whole searches, into what
every search costs, what a list more costs, and what a re-ranked row more costs.
Needs Linux, for binding the process to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, provenance
from benchmarks.judge import TOLERANCE, Judge
from soardb.errors import InvalidArgument, SoarError

RESULTS = Path(__file__).parent / "results"
BUILD_OPTIONS = {
    "nlist": int, "soar_lambda": float, "avq_eta": float, "dims_per_block": int,
}  # fmt: skip
RERANK = 110  # where a difference needs one and none is named
SEED = 0


@dataclass(frozen=True)
class Setup:
    """One setting to look into; what is None the index chooses.

    index   a file of SoarIndex.save over the data set, in place of building one
    clocks  the folder of an extension compiled with SOARDB_PROFILE
    """

    dataset: str
    build: Mapping[str, Any]
    nprobe: int | None = None
    rerank: int | None = None
    k: int = 10
    queries: int = 2000
    repeat: int = 5
    core: int = 0
    index: Path | None = None
    clocks: Path | None = None

    @property
    def search(self) -> dict[str, int]:
        """The keywords of a search that are not left to the index."""
        named = {"nprobe": self.nprobe, "rerank": self.rerank}
        return {name: value for name, value in named.items() if value is not None}


# --- the run ------------------------------------------------------------------------------------


def run(setup: Setup) -> dict[str, Any]:
    """Build or take the index, ask it with and without clocks; return the report."""
    if setup.core not in (cores := os.sched_getaffinity(0)):
        raise InvalidArgument(f"expected a core among {sorted(cores)}, got {setup.core}")
    dataset = datasets.load(setup.dataset)
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(dataset.test), min(setup.queries, len(dataset.test)), replace=False)
    queries = np.ascontiguousarray(dataset.test[chosen])
    judge = Judge(dataset.train, queries, dataset.neighbors[chosen], dataset.metric, setup.k)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "queries.npy", queries)
        file = setup.index or _build(setup, dataset, folder / "index")
        index = _describe(file)
        plain = _elsewhere(setup, folder, setup.search)
        answer = {
            "recall": judge.recall(plain["ids"], tolerance=TOLERANCE),
            "microseconds": 1e6 * plain["seconds"],
        }
        if setup.clocks is None:
            answer["differences"] = _differences(setup, folder, index["default_nprobe"])
        else:
            clocked = _elsewhere(setup, folder, setup.search, clocks=setup.clocks)
            if not np.array_equal(clocked["ids"], plain["ids"]):
                raise SoarError("expected the same answers with clocks as without, got others")
            answer["microseconds_with_clocks"] = 1e6 * clocked["seconds"]
            answer["stages"] = clocked["stages"]
    return {
        "benchmark": "profile",
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "dataset": {"name": dataset.name, "n": len(dataset.train), "queries": len(queries)},
        "setup": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(setup).items()},
        "index": index,
        **answer,
    }


def _elsewhere(
    setup: Setup, folder: Path, search: Mapping[str, int], *, clocks: Path | None = None
) -> dict[str, Any]:
    """Ask the queries of a folder in a new process, which has no kernels yet; see profile_run."""
    job = {
        "index": str(setup.index or folder / "index"),
        "queries": str(folder / "queries.npy"),
        "ids": str(folder / "ids.npy"),
        "clocks": None if clocks is None else str(clocks),
        "search": dict(search),
        "k": setup.k,
        "repeat": setup.repeat,
        "core": setup.core,
    }
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-P", "-m", "benchmarks.profile_run", str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SoarError(f"expected a measurement, its process failed\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "ids": np.load(folder / "ids.npy")}


def _build(setup: Setup, dataset: datasets.Dataset, file: Path) -> Path:
    from soardb import SoarIndex

    d = dataset.train.shape[1]
    index = SoarIndex(d, dataset.metric, threads=len(os.sched_getaffinity(0)), **setup.build)
    index.train(dataset.train)
    index.add(dataset.train)
    index.save(file)
    return file


def _describe(file: Path) -> dict[str, Any]:
    from soardb import SoarIndex

    index = SoarIndex.load(file)
    return {**index.describe(), "default_nprobe": index.default_nprobe}


def _differences(setup: Setup, folder: Path, default_nprobe: int) -> list[dict[str, Any]]:
    """What the lists and the re-ranked rows cost, by doubling either, and the rest."""
    nprobe, rerank = setup.nprobe or default_nprobe, setup.rerank or RERANK
    base, lists, rows = (
        1e6 * _elsewhere(setup, folder, {"nprobe": p, "rerank": r})["seconds"]
        for p, r in ((nprobe, rerank), (2 * nprobe, rerank), (nprobe, 2 * rerank))
    )
    by_lists, by_rows = lists - base, rows - base
    return [
        {"part": f"{nprobe} lists", "microseconds": by_lists},
        {"part": f"{rerank} re-ranked rows", "microseconds": by_rows},
        {"part": "all else", "microseconds": base - by_lists - by_rows},
    ]


def table(report: Mapping[str, Any]) -> str:
    """Stages in the order a search takes them, the call from Python first, as Markdown."""
    data, index = report["dataset"], report["index"]
    wanted = report["setup"]["nprobe"], report["setup"]["rerank"]
    nprobe, rerank = ("default" if value is None else value for value in wanted)
    head = (
        f"{data['name']}, {data['n']:,} vectors, {index['nlist']} lists, nprobe {nprobe}, "
        f"rerank {rerank}: recall {report['recall']:.4f}, {report['microseconds']:.1f} us a query"
    )
    if "stages" not in report:
        rows = [
            ["part", "us", "share"],
            ["---", "---:", "---:"],
            *(_line(part["part"], part["microseconds"], report["microseconds"])
              for part in report["differences"]),
        ]  # fmt: skip
        return "\n".join([head, "", *_markdown(rows)])
    whole = report["microseconds_with_clocks"]
    rows = [["stage", "us", "share", "times", "covers"], ["---", "---:", "---:", "---:", "---"]]
    for stage in report["stages"]:
        is_call = stage["stage"] == "outside"
        rows.append([
            *_line("call" if is_call else stage["stage"], 1e6 * stage["seconds"], whole),
            "" if is_call else f"{stage['calls']:.1f}",
            "the call from Python, there and back" if is_call else stage["covers"],
        ])  # fmt: skip
    rows.append(["all", f"{whole:.2f}", "100%", "", f"{report['microseconds']:.2f} without clocks"])
    return "\n".join([head, "", *_markdown(rows)])


def _line(name: str, microseconds: float, whole: float) -> list[str]:
    return [name, f"{microseconds:.2f}", f"{microseconds / whole:.0%}"]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


# --- command line -------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> tuple[Setup, Path]:
    """Read the command line: the setting, and the folder to write to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_profile")
    parser.add_argument("--dataset", default="glove6b-100-angular")
    parser.add_argument("--nprobe", type=int)
    parser.add_argument("--rerank", type=int)
    for name, kind in BUILD_OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="of SoarIndex")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=5, help="passes, of which the fastest counts")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--index", type=Path, help="a file of SoarIndex.save over this data set")
    parser.add_argument("--clocks", type=Path, help="folder of an extension with SOARDB_PROFILE")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = vars(parser.parse_args(arguments))
    out: Path = given.pop("out")
    build = {name: given.pop(name) for name in BUILD_OPTIONS}
    return Setup(build={n: v for n, v in build.items() if v is not None}, **given), out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON and table, print the table; return the exit code."""
    setup, folder = parse(arguments)
    try:
        report = run(setup)
    except SoarError as error:
        print(f"bench_profile: {error}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"profile-{setup.dataset}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(report) + "\n")
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
