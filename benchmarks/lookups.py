"""WordNet for an agent: what nouns are kinds and parts of, as a collection and as questions.

    packages.py, synsets.py -> [lookups.py] -> lookup_models.py, bench_agent.py

A point is a noun that has one meaning and its text says its facts before its definition. Questions
need two to four of them, one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.packages import debian_files
from soardb.errors import CorruptStorage, InvalidArgument
from soardb.pipelines.agent.compose import RELATIONS, Composed, compose, statement
from soardb.pipelines.agent.store import hashed

__all__ = ["Lookups", "collection_of", "made_up", "read", "split"]

_SIGNS = {"@": "kind", "#p": "whole"}  # of pointers in WordNet's files
_BRANCH = 4  # steps below the top at which a branch begins
_NAME = 2  # words of a name, at most
_PIECES = (
    "ba", "ke", "li", "mo", "nu", "pra", "sti", "tro", "vel", "zan", "dor", "fin", "gal", "mek",
    "nis", "pol",
)  # fmt: skip


@dataclass(frozen=True)
class Lookups:
    """facts: {name: {relation: name}}; branches: {name: branch}; texts: {name: its passage}."""

    facts: Mapping[str, Mapping[str, str]]
    branches: Mapping[str, str]
    texts: Mapping[str, str]


def read(package: Path) -> Lookups:
    """From WordNet's nouns: those whose first word has no other meaning, in the file's order."""
    path = "./usr/share/wordnet/data.noun"
    found = dict(debian_files(package, (path,)))
    if path not in found:
        raise CorruptStorage(f"{package}: expected WordNet's {path}; not in it")
    return parsed(found[path].decode())


def parsed(text: str) -> Lookups:
    """From the lines of data.noun."""
    names: dict[str, str] = {}
    links: dict[str, dict[str, str]] = {}
    glosses: dict[str, str] = {}
    words: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        every = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        words.update({word.lower() for word in every})
        names[fields[0]] = every[0]
        glosses[fields[0]] = gloss.partition(";")[0].partition('"')[0].strip()
        pointers = fields[5 + 2 * count :]
        for sign, other in zip(pointers[0::4], pointers[1::4], strict=False):
            if sign in _SIGNS:
                links.setdefault(fields[0], {}).setdefault(_SIGNS[sign], other)
    clear = {
        place
        for place, name in names.items()
        if words[name.lower()] == 1
        and len(name.split()) <= _NAME
        and name.replace(" ", "").replace("-", "").isalpha()
    }
    facts = {
        names[place]: {relation: names[other] for relation, other in links.get(place, {}).items()}
        for place in clear
    }
    facts = {name: told for name, told in facts.items() if told}
    texts = {
        name: " ".join([*(f"{statement(name, r, o)}." for r, o in told.items()), glosses[place]])
        for place in sorted(clear)
        if (told := facts.get(name := names[place]))
    }
    return Lookups(facts, _branches(names, links), texts)


def _branches(names: Mapping[str, str], links: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The name of what stands _BRANCH steps below the top, of all that stand there or deeper."""
    found: dict[str, str] = {}
    for place, name in names.items():
        path = [place]
        while (above := links.get(path[-1], {}).get("kind")) is not None:
            path.append(above)
        if len(path) > _BRANCH:
            found[name] = path[-1 - _BRANCH]
    return found


def made_up(
    count: int = 600,
    pieces: Sequence[str] = _PIECES,
    glosses: Sequence[str] = ("it is made up",),
    seed: int = 0,
) -> Lookups:
    """The same of made-up names, in trees of about fifty: for drills, and for tests.

    A name is one word or two, of one to three of the pieces each. Errors: InvalidArgument where
    the pieces are too few for so many.
    """
    if count > len(pieces) ** 3:
        raise InvalidArgument(f"expected pieces for {count} names, got {len(pieces)}")
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = ["".join(random.choice(pieces, random.integers(1, 4))) for _ in range(2)]
        found[" ".join(words[: int(random.integers(1, 3))])] = None
    names = list(found)
    facts: dict[str, dict[str, str]] = {}
    branches: dict[str, str] = {}
    trees = max(6, count // 50)
    for number, name in enumerate(names):
        branches[name] = names[number % trees]
        if number >= trees:
            above = names[number % trees + trees * int(random.integers(number // trees))]
            facts[name] = {"kind": above}
            if number % 3 == 0:
                facts[name]["whole"] = names[number - trees]
    texts = {
        name: " ".join(f"{statement(name, r, o)}." for r, o in told.items())
        + f" {glosses[int(random.integers(len(glosses)))]}"
        for name, told in facts.items()
    }
    return Lookups(facts, branches, texts)


def collection_of(database: Any, name: str, lookups: Lookups, embed: Any = None) -> Any:
    """A collection with a point a noun: title, text. Vectors by embed, or of words' numbers."""
    if name in database.list_collections():
        held = database.get_collection(name)
        if len(held) == len(lookups.texts):
            return held
        database.drop_collection(name)  # it was stopped while it was filled
    titles = list(lookups.texts)
    texts = list(lookups.texts.values())
    vectors = (embed or hashed)(texts)
    made = database.create_collection(
        name, vectors.shape[1], "cosine", schema={"title": "text", "text": "text"}
    )
    payloads = [{"title": a, "text": b} for a, b in zip(titles, texts, strict=True)]
    for first in range(0, len(titles), 4096):
        part = slice(first, first + 4096)
        made.upsert(list(range(len(titles)))[part], vectors[part], payloads[part])
    return made


def split(
    lookups: Lookups, finds: Callable[[str], Sequence[str]], counts: Mapping[str, int], seed: int
) -> dict[str, list[Composed]]:
    """Questions for each split, whose names a search finds."""
    return compose(lookups.facts, lookups.branches, finds, counts, seed)


assert set(_SIGNS.values()) == set(RELATIONS)
