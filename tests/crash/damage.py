"""Damage to every kind of file, and what the database makes of it.

    make damage -> [damage.py] -> model.py (children of itself do the work)

    python -P -m tests.crash.damage --count 5000 --seed 1

Two directories are made: one closed in order, one left by a kill in the middle of a build, with a
WAL and a kept model. Then, again and again, one file of a copy is damaged: a bit flipped, cut
short, a page zeroed or filled with noise, emptied, deleted, replaced by its like of another
collection or by its own past. Opening it and asking everything must end in an error of soardb that
names a path of the database, or in exactly the answers of the sound directory. A signal, a hang or
any other answer is a finding.

Only single damages are made: two that agree with each other cannot be told from the truth.

One kind is known and counted apart (`text_only`): SQLite keeps no checksum of a full-text index, so
a flip in one of its words makes that word be missed, or found, in the wrong place. Points, vectors
and all other conditions stay right.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from soardb.collection import Collection
from soardb.database import Database
from soardb.errors import SoarError
from tests.crash.checker import AT_REST, everything
from tests.crash.model import BUCKETS, DIM, first_payload, patch_of, payload_where, vectors_of

__all__ = ["Damage", "Summary", "answers", "campaign", "make_directories"]

_SCHEMA = {"owner": "int", "bucket": "int", "body": "text"}
_PAGE = 4096
_SMALL = 1_000
_BATCH = 60
_SECONDS_EACH = 10.0
_WEIGHTS = {".sqlite": 8, ".generation": 3, ".sqlite-wal": 4}
_TEXT_ONLY = "WRONG TEXT"
_NAMES = ("first", "second")


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing done to one file. directory: "closed" or "killed"; file: path inside it."""

    directory: str
    file: str
    kind: str
    at: int = 0
    bit: int = 0

    def do(self, database: Path, sources: Path) -> None:
        """Do it to a copy of the directory."""
        target = database / self.file
        data = bytearray(target.read_bytes())
        match self.kind:
            case "flip":
                data[self.at] ^= 1 << self.bit
            case "cut":
                del data[self.at :]
            case "zeros":
                data[self.at : self.at + _PAGE] = bytes(len(data[self.at : self.at + _PAGE]))
            case "noise":
                rng = random.Random(self.at)
                data[self.at : self.at + _PAGE] = rng.randbytes(len(data[self.at :][:_PAGE]))
            case "longer":
                data += b"\0" * 100
            case "deleted":
                target.unlink()
                return
            case "other" | "past":
                data = bytearray(_like(sources, self).read_bytes())
        target.write_bytes(data)


def _like(sources: Path, damage: Damage) -> Path:
    """The file of the other collection, or the same one some writes ago."""
    if damage.kind == "past":
        return sources / "past" / damage.file
    folder, _, rest = damage.file.partition("/")
    root = sources / damage.directory
    others = [p for p in root.iterdir() if p.is_dir() and p.name != folder]
    place = others[0] / rest
    if place.suffix == ".generation":
        return next(place.parent.glob("*.generation"))
    return place


@dataclass(slots=True)
class Summary:
    """Totals over all damages."""

    damages: int = 0
    refused: int = 0
    right: int = 0
    text_only: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    by_file: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------- the sound directories


def fill(path: Path, stage: int) -> None:
    """Two collections of one form and other contents: generation, later rows, gone rows.

    stage 0 makes them, 1 goes on writing, 2 begins builds until a fault point kills the process.
    """
    db = Database(path, policy=AT_REST)
    for owner, name in enumerate(_NAMES):
        c = db.create_collection(name, DIM, "l2", schema=_SCHEMA, index={"nlist": 8}, exist_ok=True)
        if stage == 0:
            put(c, range(400), 100 + owner, owner)
            c.delete(list(range(0, 40)))
            c.compact(retrain=True)
            put(c, range(380, 460), 200 + owner, owner)
        c.delete(list(range(50 + 10 * stage, 60 + 10 * stage)))
        c.update_payload(patch_of(300 + stage), ids=list(range(100, 120)))
        put(c, range(1_000 * stage, 1_000 * stage + 30), 400 + 10 * stage + owner, owner)
    if stage == 2:
        for name in _NAMES:
            db.get_collection(name).compact(retrain=True)
        os.kill(os.getpid(), signal.SIGKILL)
    db.close()


def put(collection: Collection, ids: range, version: int, owner: int) -> None:
    """Points whose payloads differ."""
    payloads = [first_payload(version, owner) | {"bucket": i % BUCKETS, "n": i} for i in ids]
    collection.upsert(list(ids), vectors_of(ids, [version] * len(ids)), payloads)


def make_directories(folder: Path) -> None:
    """folder/past, folder/closed and folder/killed, and the sound answers beside them."""
    work = folder / "work"
    for stage, name in enumerate(("past", "closed", "killed")):
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "tests.crash.damage", "--fill", str(work), str(stage)],
            env={**os.environ, "SOARDB_CRASH_AT": f"build.before_rename:{1 if stage == 2 else 99}"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        shutil.copytree(work, folder / name)
    for name in ("closed", "killed"):
        (folder / f"{name}.json").write_text(json.dumps(_asked(folder / name, folder / "asked")))


def _asked(directory: Path, copy: Path) -> Any:
    shutil.copytree(directory, copy)
    try:
        with Database(copy, policy=AT_REST) as db:
            return answers(db)
    finally:
        shutil.rmtree(copy)


def answers(db: Database) -> Any:
    """Everything that can be asked, each by itself: {question: answer, or Refused's message}."""
    asked: dict[str, Any] = {
        "names": db.list_collections(),
        "aliases": db.list_aliases(),
    }
    for name in db.list_collections():
        for question, ask in QUESTIONS.items():
            try:
                answer = ask(db.get_collection(name))
            except SoarError as error:
                answer = {"refused": str(error), "kind": type(error).__name__}
            asked[f"{name}, {question}"] = answer
    return asked


_QUERIES = vectors_of([f"query {i}" for i in range(8)], [1] * 8)


def _everything(collection: Collection) -> Any:
    ids, payloads, vectors = everything(collection)
    return [ids, payloads, np.asarray(vectors).tobytes().hex()]


def _nearest(collection: Collection) -> Any:
    hits = collection.search(_QUERIES, limit=20, exact=True, with_payload=False)
    return [[[int(i) for i in h.ids], h.scores.tolist()] for h in hits]


def _nearest_within(collection: Collection) -> Any:
    hits = collection.search(_QUERIES[0], limit=20, exact=True, filter=payload_where(0, 3))
    return [[int(i) for i in hits.ids], hits.payloads]


def _got(collection: Collection) -> Any:
    points = collection.get([*range(0, 460, 7), 1_001], with_vectors=True)
    return [None if p is None else [p.id, p.payload, np.asarray(p.vector).tolist()] for p in points]


def _by_words(collection: Collection) -> Any:
    hits = collection.search(text="alpha2 alpha4", limit=20)
    return [sorted(int(i) for i in hits.ids), hits.scores.tolist()]


def _word_counts(collection: Collection) -> Any:
    words = "alpha1", "alpha2", "alpha4", "alpha6", "beta"
    return [collection.count({"field": "body", "op": "matches", "value": w}) for w in words]


QUESTIONS: dict[str, Callable[[Collection], Any]] = {
    "nearest": _nearest,
    "count": lambda c: c.count(),
    "buckets": lambda c: [c.count(payload_where(o, b)) for o in (0, 1) for b in range(8)],
    "nearest within": _nearest_within,
    "points": _got,
    "everything": _everything,
    "text search": _by_words,
    "text counts": _word_counts,
}


# ---------------------------------------------------------------------- which damages


def all_damages(folder: Path, count: int, rng: random.Random) -> list[Damage]:
    """Every damage of whole files, and a draw of `count` others over all files."""
    whole: list[Damage] = []
    draws: list[Callable[[], Damage]] = []
    for directory in ("closed", "killed"):
        for path in sorted((folder / directory).rglob("*")):
            if not path.is_file():
                continue
            file = str(path.relative_to(folder / directory))
            size = path.stat().st_size
            whole += [Damage(directory, file, kind) for kind in ("deleted", "longer")]
            whole.append(Damage(directory, file, "cut", 0))
            past = folder / "past" / file
            if directory == "closed" and past.exists() and path.name != "LOCK":
                whole.append(Damage(directory, file, "past"))
            if "/" in file and not path.name.startswith(".") and path.name != "model.part":
                whole.append(Damage(directory, file, "other"))
            if size:
                draws += _draws(directory, file, path, size, rng) * _WEIGHTS.get(path.suffix, 1)
    return whole + [rng.choice(draws)() for _ in range(count)]


def _draws(
    directory: str, file: str, path: Path, size: int, rng: random.Random
) -> list[Callable[[], Damage]]:
    spots = _spots(path, size)

    def flip() -> Damage:
        first, last = rng.choice(spots)
        return Damage(directory, file, "flip", rng.randrange(first, last), rng.randrange(8))

    def at(kind: str) -> Callable[[], Damage]:
        def draw() -> Damage:
            place = rng.randrange(size)
            return Damage(directory, file, kind, place if kind == "cut" else place // _PAGE * _PAGE)

        return draw

    return [flip, flip, flip, at("cut"), at("zeros"), at("noise")]


def _spots(path: Path, size: int) -> list[tuple[int, int]]:
    """Ranges of bytes to flip in, each as likely: tables of a row store, however small."""
    spots = [(0, size), (0, min(size, 200))]
    if path.name == "rows.sqlite":
        connection = apsw.Connection(f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY
                                     | apsw.SQLITE_OPEN_URI)  # fmt: skip
        page = _rows(connection, "PRAGMA page_size")[0][0]
        tables = "points", "gone", "gone_by_seq", "state", "settings"
        roots = _rows(connection, "SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0")
        connection.close()
        for name, root in roots:
            if name in tables or name.startswith("fulltext"):
                # The head of a page, and the cells, which fill it from the end.
                first = (root - 1) * page
                spots += [(first, first + 64), (first + page - 600, first + page)]
    return spots


def _rows(connection: apsw.Connection, query: str) -> list[Any]:
    return connection.execute(query).fetchall()


def every_cut(folder: Path) -> list[Damage]:
    """Small files cut at every byte."""
    return [
        Damage("closed", str(path.relative_to(folder / "closed")), "cut", at)
        for path in sorted((folder / "closed").rglob("*"))
        if path.is_file() and path.stat().st_size <= _SMALL
        for at in range(path.stat().st_size)
    ]


# ---------------------------------------------------------------------- the child


def work(folder: Path, damages: Sequence[Damage], result: Path) -> None:
    """Try damages one by one; a line of JSON for each, before and after."""
    sound = {n: json.loads((folder / f"{n}.json").read_text()) for n in ("closed", "killed")}
    logging.getLogger("soardb").setLevel(logging.CRITICAL)
    copy = folder / f"copy-{os.getpid()}"
    with result.open("w") as lines:
        for number, damage in enumerate(damages):
            print(json.dumps({"begun": number}), file=lines, flush=True)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder / damage.directory, copy)
            damage.do(copy, folder)
            signal.alarm(int(_SECONDS_EACH))
            outcome = outcome_of(copy, sound[damage.directory])
            signal.alarm(0)
            print(json.dumps({"done": number, "outcome": outcome}), file=lines, flush=True)
    shutil.rmtree(copy, ignore_errors=True)


def outcome_of(copy: Path, sound: Any) -> str:
    """ "right", "refused", or what is wrong: each question for itself must end so."""
    refusals: list[str] = []
    try:
        with Database(copy, policy=AT_REST) as db:
            found = json.loads(json.dumps(answers(db)))
    except SoarError as error:
        found = {}
        refusals.append(f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001
        return f"raised {type(error).__name__}: {error}"
    wrong: list[str] = []
    for question, answer in found.items():
        if isinstance(answer, dict) and "refused" in answer:
            refusals.append(f"{answer['kind']}: {answer['refused']}")
        elif answer != sound[question]:
            wrong.append(f"{question}: {str(answer)[:100]}, is {str(sound[question])[:100]}")
    unnamed = [refusal for refusal in refusals if str(copy) not in refusal]
    if wrong:
        is_text = all(question.partition(", ")[2].startswith("text ") for question in wrong)
        return f"{_TEXT_ONLY if is_text else 'WRONG'}: {wrong}"
    if unnamed:
        return f"names no file: {unnamed[0]}"
    return "refused" if refusals else "right"


# ---------------------------------------------------------------------- the parent


def campaign(folder: Path, damages: Sequence[Damage], *, show: bool = False) -> Summary:
    """Try damages in children, a batch each; a child that dies or hangs is a finding."""
    summary, begun = Summary(), time.perf_counter()
    by_kind: Counter[str] = Counter()
    by_file: Counter[str] = Counter()
    rest = list(damages)
    while rest:
        batch = rest[:_BATCH]
        outcomes = _batch(folder, batch)
        rest = rest[len(outcomes) :]
        for damage, outcome in zip(batch, outcomes, strict=False):
            summary.damages += 1
            by_kind[damage.kind] += 1
            by_file[_kind_of(damage.file)] += 1
            if outcome == "refused":
                summary.refused += 1
            elif outcome == "right":
                summary.right += 1
            elif outcome.startswith(_TEXT_ONLY) and ".sqlite" in damage.file:
                summary.text_only += 1
            else:
                summary.problems.append(f"{damage}: {outcome}")
                if show:
                    print(summary.problems[-1], flush=True)
        if show:
            print(f"{summary.damages} of {len(damages)}", flush=True)
    summary.by_kind, summary.by_file = dict(by_kind), dict(by_file)
    summary.seconds = time.perf_counter() - begun
    return summary


def _batch(folder: Path, batch: Sequence[Damage]) -> list[str]:
    """Outcomes of a batch, up to the first at which the child ended by itself."""
    orders, result = folder / "orders.json", folder / "result.jsonl"
    orders.write_text(json.dumps([asdict(damage) for damage in batch]))
    result.write_text("")
    ended = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-m", "tests.crash.damage", "--work",
         str(folder), str(orders), str(result)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    entries = [json.loads(line) for line in result.read_text().splitlines()]
    outcomes = [entry["outcome"] for entry in entries if "done" in entry]
    if len(outcomes) < len(batch):
        how = "a hang" if ended.returncode == -signal.SIGALRM else f"ended with {ended.returncode}"
        outcomes.append(f"{how}: {ended.stderr[-600:]}")
    return outcomes


def _kind_of(file: str) -> str:
    name = Path(file).name
    return "*.generation" if name.endswith("generation") else name if name[0] != "." else "scratch"


def main() -> int:
    """The command line; --fill and --work are for the children."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fill", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(Path(options.fill[0]), int(options.fill[1]))
        return 0
    if options.work:
        folder, orders, result = map(Path, options.work)
        work(folder, [Damage(**entry) for entry in json.loads(orders.read_text())], result)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="soardb-damage-"))
    make_directories(folder)
    damages = all_damages(folder, options.count, random.Random(options.seed)) + every_cut(folder)
    summary = campaign(folder, damages, show=True)
    print(json.dumps(asdict(summary), indent=1))
    shutil.rmtree(folder)
    return 1 if summary.problems else 0


if __name__ == "__main__":
    sys.exit(main())
