"""Trajectories as a collection: searched by question, filtered, audited, and learned from.

    machine.py, feedback.py -> [store.py] -> mixture.py, rest.py

A trajectory is one point, and each of its steps another with its samples, their log probabilities,
its ranking and what its search found; all lie at the vector of the question. They are written in
one call, so a trajectory is there whole or not at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument
from soardb.filters.expr import Expr, F
from soardb.kernels.layout import F32
from soardb.pipelines.agent.trajectory import Ranking, StepRecord, Trajectory, Verdict, step_of
from soardb.pipelines.stored import pages, set_fields

__all__ = ["SCHEMA", "Trajectories", "hashed"]

Embed = Callable[[Sequence[str]], F32]

SCHEMA: Mapping[str, str] = {
    "kind": "keyword",
    "run": "keyword",
    "trajectory": "keyword",
    "question_id": "keyword",
    "question": "text",
    "answer": "text",
    "model": "keyword",
    "generation": "int",
    "repetition": "int",
    "searches": "int",
    "is_complete": "bool",
    "error": "text",
    "step": "keyword",
    "number": "int",
    "query": "text",
    "perplexity": "float",
    "is_ranked": "bool",
}
"""What can be filtered by: kind is "trajectory" or "step", and step that of machine.py."""

_WIDE = 64  # of vectors by hash
_AT_ONCE = 64  # trajectories of one write


class Trajectories:
    """A collection of trajectories.

    embed  texts -> (n, d) vectors of the collection's dimension
    run    which undertaking they belong to; others in the same collection are not seen
    """

    def __init__(self, collection: Any, embed: Embed, run: str = "") -> None:
        if missing := sorted(set(SCHEMA) - set(collection.schema)):
            raise InvalidArgument(
                f"expected a collection with the fields of trajectories, {missing[0]} is not "
                "declared; make it by Trajectories.create"
            )
        self.collection = collection
        self._embed = embed
        self._run = run

    @classmethod
    def create(cls, database: Any, name: str, embed: Embed, run: str = "") -> Trajectories:
        """A new collection of trajectories, or the one of that name. Errors: InvalidArgument."""
        d = embed(["how wide are vectors?"]).shape[1]
        if name in database.list_collections():
            held = database.get_collection(name)
            if held.d != d:
                raise InvalidArgument(
                    f"expected vectors of {held.d} dimensions, which collection {name!r} has, got "
                    f"{d}; take the embedder that it was made with, or another collection"
                )
            return cls(held, embed, run)
        made = database.create_collection(name, d, "cosine", schema=dict(SCHEMA))
        return cls(made, embed, run)

    def add(self, trajectories: Sequence[Trajectory]) -> None:
        """Write trajectories with their steps; those of the same ids are replaced."""
        for first in range(0, len(trajectories), _AT_ONCE):
            some = trajectories[first : first + _AT_ONCE]
            vectors = self._embed([one.question for one in some])
            told = [list(self._points(one)) for one in some]
            ids = [id_ for points in told for id_, _ in points]
            payloads = [payload for points in told for _, payload in points]
            repeats = [len(points) for points in told]
            self.collection.upsert(ids, np.repeat(vectors, repeats, axis=0), payloads)

    def rank(self, rankings: Mapping[tuple[str, int], Ranking]) -> int:
        """Put the rankings of steps on record, by trajectory and number; how many there were."""
        ids = [f"{trajectory}/{number}" for trajectory, number in rankings]
        changes = [{"ranking": asdict(one), "is_ranked": True} for one in rankings.values()]
        return set_fields(self.collection, ids, changes)

    def judge(self, verdicts: Mapping[str, Sequence[Verdict]]) -> int:
        """Add verdicts on trajectories to those on record, by their ids; how many trajectories.

        One of the same judge on the same answer and reference is replaced.
        """
        ids = list(verdicts)
        changes = []
        for id_, point in zip(ids, self.collection.get(ids), strict=True):
            held = [] if point is None else point.payload.get("verdicts", [])
            told = [Verdict(**one) for one in held] + list(verdicts[id_])
            by_claim = {(one.judge, one.answer, one.reference): asdict(one) for one in told}
            changes.append({"verdicts": list(by_claim.values())})
        return set_fields(self.collection, ids, changes)

    def unjudge(self, trajectories: Sequence[Trajectory], judge: str) -> list[Trajectory]:
        """Drop the verdicts of a judge on trajectories, here and on record; these without them."""
        bare = [
            replace(one, verdicts=tuple(v for v in one.verdicts if v.judge != judge))
            for one in trajectories
        ]
        changes = [{"verdicts": [asdict(verdict) for verdict in one.verdicts]} for one in bare]
        set_fields(self.collection, [one.id for one in bare], changes)
        return bare

    def __len__(self) -> int:
        return int(self.collection.count(self._where({"kind": "trajectory"})))

    def all(self, **fields: Any) -> list[Trajectory]:
        """The trajectories whose fields are these, with all of their steps.

        In order of generation, repetition and question, which is the same however often and in how
        many parts they were made. Reads the points of all of them.
        """
        heads: dict[str, dict[str, Any]] = {}
        for payload in self._payloads({**fields, "kind": "trajectory"}):
            heads[payload["trajectory"]] = payload
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in heads}
        shared = {k: v for k, v in fields.items() if k in _ON_STEPS}
        for payload in self._payloads({**shared, "kind": "step"}):
            if payload["trajectory"] in steps:
                steps[payload["trajectory"]].append(payload)
        found = [_trajectory(head, steps[name]) for name, head in heads.items()]
        return sorted(
            found, key=lambda one: (one.generation, one.repetition, one.question_id, one.id)
        )

    def done(self, generation: int) -> dict[tuple[str, int], Trajectory]:
        """The trajectories that a generation has, complete or not, without their steps.

        By question id and repetition.
        """
        where = {"kind": "trajectory", "generation": generation}
        found = [_trajectory(payload, []) for payload in self._payloads(where)]
        return {(one.question_id, one.repetition): one for one in found}

    def alike(self, question: str, limit: int = 10, **fields: Any) -> list[Trajectory]:
        """The trajectories whose questions are closest, without steps."""
        where = self._where({**fields, "kind": "trajectory"})
        hits = self.collection.search(
            self._embed([question])[0], limit=limit, filter=where, with_payload=True
        )
        return [_trajectory(payload or {}, []) for payload in hits.payloads]

    def _points(self, one: Trajectory) -> Iterator[tuple[str, dict[str, Any]]]:
        shared = {
            "run": self._run, "trajectory": one.id, "question_id": one.question_id,
            "question": one.question, "model": one.model, "generation": one.generation,
            "repetition": one.repetition, "is_complete": one.is_complete,
        }  # fmt: skip
        told = one.to_json()
        del told["steps"]
        verdicts = told.pop("verdicts")
        yield one.id, {
            **shared, "kind": "trajectory", "searches": one.searches, "answer": one.answer,
            "error": one.error, "verdicts": verdicts, "record": told,
        }  # fmt: skip
        for number, step in enumerate(one.steps):
            yield f"{one.id}/{number}", {
                **shared, "kind": "step", "number": number, "step": step.step,
                "query": None if step.tool is None else step.tool.query,
                "perplexity": step.samples[step.chosen].perplexity,
                "is_ranked": step.ranking is not None, "ranking": None if step.ranking is None
                else asdict(step.ranking), "record": _without_ranking(step),
            }  # fmt: skip

    def _where(self, fields: Mapping[str, Any]) -> Expr:
        where = F("run") == self._run
        for name, value in fields.items():
            where &= F(name) == value
        return where

    def _payloads(self, fields: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        for points in pages(self.collection, self._where(fields)):
            yield from (point.payload for point in points)


_ON_STEPS = ("generation", "repetition", "model", "question_id", "is_complete")


def _without_ranking(step: StepRecord) -> dict[str, Any]:
    return asdict(replace(step, ranking=None))


def _trajectory(head: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Trajectory:
    found = Trajectory.of_json(
        {**head["record"], "verdicts": head.get("verdicts", ()), "steps": []}
    )
    ordered = sorted(steps, key=lambda one: one["number"])
    return found.with_steps(
        tuple(step_of({**one["record"], "ranking": one.get("ranking")}) for one in ordered)
    )


def hashed(texts: Sequence[str]) -> F32:
    """(n, 64) of length one: a direction for each word, drawn by its CRC, and summed.

    For who has no embedder: questions are alike that share words.
    """
    out = np.zeros((len(texts), _WIDE), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split() or [""]:
            out[row] += np.random.default_rng(zlib.crc32(word.encode())).normal(size=_WIDE)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out
