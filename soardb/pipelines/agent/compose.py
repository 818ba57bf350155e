"""Questions of several look-ups, made from facts: exact answers, and nothing shared between splits.

    facts by name -> [compose.py] -> questions for growing, validation and tests

A fact says of a name what it is a kind of, or part of. Questions chain facts, What is the kind of
the whole of "carburetor"?, or compare two chains; names stand in quotes. Each needs as many
look-ups as it has facts, one after the other, as a name that stands in between is not in the
question.

A split has branches of its own: no fact that a question for tests needs is needed by one that is
learned from, so that who knows those facts by heart gains nothing. What is compared is of one
branch, and no word of an answer stands in its question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, MalformedOutput
from soardb.pipelines.agent.machine import Question

__all__ = [
    "KINDS",
    "RELATIONS",
    "Chain",
    "Composed",
    "Plan",
    "beginning",
    "compose",
    "plan_of",
    "statement",
]

RELATIONS: Mapping[str, str] = {"kind": "is a kind of", "whole": "is part of"}
"""Names of relations, and how they are said of a name and another one."""

KINDS = ("chain-4", "same-4", "chain-3", "chain-2", "which-2", "same-2")
"""Of questions, the rarest first; the number is that of look-ups."""

Facts = Mapping[str, Mapping[str, str]]  # name -> relation -> name

_CHAIN = re.compile(r"What is (the .*)\?")
_SAME = re.compile(r'Do "([^"]+)" and "([^"]+)" have the same (.*)\?')
_WHICH = re.compile(r'Which of "([^"]+)" and "([^"]+)" has the kind "([^"]+)"\?')


@dataclass(frozen=True, slots=True)
class Chain:
    """What stands at the end of these relations, from a name on; the first is looked up first."""

    start: str
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question asks for.

    how     "chain", "same" or "which"
    chains  one, or two that are compared
    wanted  of "which": what the right one leads to
    """

    how: str
    chains: tuple[Chain, ...]
    wanted: str | None = None

    @property
    def text(self) -> str:
        """The question; plan_of() reads it."""
        one = self.chains[0]
        if self.how == "chain":
            return f'What is the {_phrase(one.relations)} of "{one.start}"?'
        both = f'"{one.start}" and "{self.chains[1].start}"'
        if self.how == "same":
            return f"Do {both} have the same {_phrase(one.relations)}?"
        return f'Which of {both} has the kind "{self.wanted}"?'


@dataclass(frozen=True, slots=True)
class Composed:
    """A question, its kind, and the names to look up, in order."""

    question: Question
    kind: str
    names: tuple[str, ...]


def statement(name: str, relation: str, other: str) -> str:
    """A fact as a sentence without its stop."""
    return f'{beginning(name, relation)} "{other}"'


def beginning(name: str, relation: str) -> str:
    """A fact up to what is not known yet."""
    return f'"{name}" {RELATIONS[relation]}'


def plan_of(text: str) -> Plan:
    """What a question of this module asks for. Errors: MalformedOutput for another one."""
    if found := _CHAIN.fullmatch(text):
        relations: list[str] = []
        rest = found[1]
        while match := re.match(rf"the ({'|'.join(RELATIONS)}) of ", rest):
            relations.insert(0, match[1])
            rest = rest[match.end() :]
        if relations and re.fullmatch(r'"[^"]+"', rest):
            return Plan("chain", (Chain(rest[1:-1], tuple(relations)),))
    if found := _SAME.fullmatch(text):
        said = tuple(reversed(found[3].split(" of the ")))
        if set(said) <= set(RELATIONS):
            return Plan("same", (Chain(found[1], said), Chain(found[2], said)))
    if found := _WHICH.fullmatch(text):
        return Plan("which", (Chain(found[1], ("kind",)), Chain(found[2], ("kind",))), found[3])
    raise MalformedOutput(f"expected a question that was composed here, got {text!r}")


def compose(
    facts: Facts,
    branches: Mapping[str, str],
    finds: Callable[[str], Sequence[str]],
    counts: Mapping[str, int],
    seed: int = 0,
) -> dict[str, list[Composed]]:
    """Questions for each split, with as many of each kind as can be.

    facts     {name: {relation: name}}
    branches  {name: its branch}; names without one are not asked about
    finds     the names that a search for a name finds: a question is made only where each of its
              names is found by its own
    counts    {split: questions}

    Branches are dealt to the splits so that their names are about as many to a question. Errors:
    InvalidArgument where a split cannot have so many, and for names with a quote.
    """
    for split, count in counts.items():
        as_int(count, f"count of {split!r}", 1, 10_000_000)
    said = {*facts, *(other for told in facts.values() for other in told.values())}
    if quoted := [name for name in said if '"' in name]:
        raise InvalidArgument(f"expected names without quotes, got {min(quoted)!r}")
    random = np.random.default_rng(seed)
    dealt = _dealt(branches, counts, random)
    found: dict[str, list[Composed]] = {}
    for split, count in counts.items():
        names = sorted(name for name in facts if branches.get(name) in dealt[split])
        names = [names[place] for place in random.permutation(len(names))]
        maker = _Maker(facts, branches, frozenset(names), finds)
        some: list[Composed] = []
        for number, kind in enumerate(KINDS):
            each = -(-(count - len(some)) // (len(KINDS) - number))  # what one lacks others have
            mine = _taken(maker.found(maker.of_kind(kind, names, random)), each)
            some += [
                Composed(Question(f"{split}-{len(some) + n}", *one[:2]), kind, one[2])
                for n, one in enumerate(mine)
            ]
        if len(some) < count:
            raise InvalidArgument(
                f"expected facts for {count} questions in {split!r}, there are for {len(some)}; "
                "ask for fewer"
            )
        found[split] = [some[place] for place in random.permutation(len(some))]
    return found


_Made = tuple[str, tuple[str, ...], tuple[str, ...]]  # text, references, names


@dataclass
class _Maker:
    """Questions of one split."""

    facts: Facts
    branches: Mapping[str, str]
    names: frozenset[str]
    finds: Callable[[str], Sequence[str]]

    def __post_init__(self) -> None:
        self._found: dict[str, bool] = {}

    def found(self, made: Iterator[_Made]) -> Iterator[_Made]:
        """Those whose names are each found by a search for them."""
        return (one for one in made if all(map(self._is_found, one[2])))

    def of_kind(
        self, kind: str, names: Sequence[str], random: np.random.Generator
    ) -> Iterator[_Made]:
        how, look_ups = kind.split("-")
        if how == "chain":
            yield from self._chains(names, int(look_ups), random)
        elif how == "same":
            yield from self._same(names, int(look_ups) // 2)
        else:
            yield from self._which(names)

    def _chains(
        self, names: Sequence[str], length: int, random: np.random.Generator
    ) -> Iterator[_Made]:
        for name in names:
            first = sorted(self.facts[name])
            relations = (first[int(random.integers(len(first)))], *["kind"] * (length - 1))
            path = self._path(Chain(name, relations))
            if path is not None and not _words(path[-1]) & _words(name):
                plan = Plan("chain", (Chain(name, relations),))
                yield plan.text, (path[-1],), path[:-1]

    def _same(self, names: Sequence[str], length: int) -> Iterator[_Made]:
        """Yes and no in turn: of the same branch where it is no, so that it is not plain to see."""
        by_end: dict[str, list[tuple[str, ...]]] = {}
        relations = ("kind",) * length
        paths = [path for name in names if (path := self._path(Chain(name, relations)))]
        for path in paths:
            by_end.setdefault(path[-1], []).append(path)
        alike = [
            (one, other)
            for found in by_end.values()
            for one, other in zip(found[::2], found[1::2], strict=False)
            if not set(one[:-1]) & set(other[:-1])
        ]
        by_branch: dict[str, list[tuple[str, ...]]] = {}
        for path in paths:
            by_branch.setdefault(self.branches[path[0]], []).append(path)
        other = [
            (one, two)
            for found in by_branch.values()
            for one, two in zip(found[::2], found[1::2], strict=False)
            if one[-1] != two[-1] and not set(one) & set(two)
        ]
        for yes, no in zip(alike, other, strict=False):
            for (one, two), answer in ((yes, "yes"), (no, "no")):
                plan = Plan("same", (Chain(one[0], relations), Chain(two[0], relations)))
                yield plan.text, (answer,), (*one[:-1], *two[:-1])

    def _which(self, names: Sequence[str]) -> Iterator[_Made]:
        paths = [path for name in names if (path := self._path(Chain(name, ("kind",))))]
        for number, (one, other) in enumerate(zip(paths[::2], paths[1::2], strict=False)):
            if one[1] != other[1] and not _words(one[1], other[1]) & _words(one[0], other[0]):
                right = (one, other)[number % 2]
                both = (Chain(one[0], ("kind",)), Chain(other[0], ("kind",)))
                plan = Plan("which", both, right[1])
                yield plan.text, (right[0],), (one[0], other[0])

    def _path(self, chain: Chain) -> tuple[str, ...] | None:
        """Names from the start to the end; None where a fact is missing or not of this split."""
        path = [chain.start]
        for relation in chain.relations:
            other = self.facts.get(path[-1], {}).get(relation)
            if path[-1] not in self.names or other is None:
                return None
            path.append(other)
        return tuple(path) if len(set(path)) == len(path) else None

    def _is_found(self, name: str) -> bool:
        if name not in self._found:
            self._found[name] = name in self.finds(name)
        return self._found[name]


def _dealt(
    branches: Mapping[str, str], counts: Mapping[str, int], random: np.random.Generator
) -> dict[str, set[str]]:
    """Branches of each split: each to the one with the fewest names so far for its questions."""
    sizes: dict[str, int] = {}
    for branch in branches.values():
        sizes[branch] = sizes.get(branch, 0) + 1
    every = sorted(sizes)
    held = dict.fromkeys(counts, 0)
    found: dict[str, set[str]] = {split: set() for split in counts}
    for place in random.permutation(len(every)):
        split = min(held, key=lambda one: held[one] / counts[one])
        found[split].add(every[place])
        held[split] += sizes[every[place]]
    return found


def _words(*names: str) -> set[str]:
    """Of some names. A question in which a word of its answer stands needs no search."""
    return {word for name in names for word in name.lower().replace("-", " ").split()}


def _taken(made: Iterator[_Made], count: int) -> list[_Made]:
    """The first so many with different texts."""
    found: dict[str, _Made] = {}
    for one in made:
        if len(found) >= count:
            break
        found.setdefault(one[0], one)
    return list(found.values())


def _phrase(relations: Sequence[str]) -> str:
    """The last one is said first: "kind of the whole"."""
    return " of the ".join(reversed(relations))
