"""Sets of questions: from files, and the two that agents of this kind are measured by.

    CSV, JSON Lines -> [questions.py] -> machine.py, judge.py

Bamboogle is what generations are verified on, BamTwoogle what they are tested on, neither what is
learned from (arXiv 2312.10003, section 4). They are not part of this package: who has the files
names them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument, NotFound
from soardb.pipelines.agent.machine import Question

__all__ = ["bamboogle", "bamtwoogle", "expect_apart", "read_questions"]


def bamboogle(path: str | Path) -> list[Question]:
    """Its 125 questions, from a CSV with the columns Question and Answer."""
    return _counted(read_questions(path), 125, path)


def bamtwoogle(path: str | Path) -> list[Question]:
    """Its 100 questions, from bamtwoogle.csv, with the columns question and answer."""
    return _counted(read_questions(path), 100, path)


def read_questions(
    path: str | Path, question: str = "question", answer: str | None = "answer"
) -> list[Question]:
    """Questions of a .csv or .jsonl file, in its order; capitals of column names do not matter.

    answer  the column of references: a text, or in JSON a list of texts; None: there are none

    Ids are the column "id" where there is one, else row numbers from 0. Errors: NotFound,
    InvalidArgument naming the row.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"expected questions in a file, there is none at {path}")
    found = []
    for number, row in enumerate(_rows(path)):
        held = {str(name).strip().lower(): value for name, value in row.items()}
        text = held.get(question.lower())
        if not isinstance(text, str) or not text.strip():
            raise InvalidArgument(
                f"expected a text in column {question!r} of row {number}, there are "
                f"{', '.join(held)}"
            )
        references = _texts(held, answer, number)
        found.append(Question(str(held.get("id", number)), text.strip(), references))
    if len({one.id for one in found}) < len(found):
        raise InvalidArgument(f"expected different ids of the questions in {path.name}")
    if not found:
        raise InvalidArgument(f"expected questions in {path.name}, there are none")
    return found


def expect_apart(learned: Iterable[Question], held_out: Iterable[Question]) -> None:
    """InvalidArgument where a question that is measured by is among those learned from."""
    known = {_plain(one.text) for one in learned}
    if both := next((one for one in held_out if _plain(one.text) in known), None):
        raise InvalidArgument(f"expected questions that are not learned from, got {both.text!r}")


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            for row in csv.DictReader(file):
                if None in row:  # more values than columns
                    raise InvalidArgument(f"expected as many values as columns, got {row}")
                yield row
        elif path.suffix == ".jsonl":
            for number, line in enumerate(file):
                try:
                    held = json.loads(line)
                except ValueError as error:
                    raise InvalidArgument(f"expected JSON in line {number}: {error}") from error
                if not isinstance(held, dict):
                    raise InvalidArgument(f"expected an object in line {number}, got {line[:60]!r}")
                yield held
        else:
            raise InvalidArgument(f"expected a .csv or .jsonl file, got {path.name}")


def _texts(held: dict[str, Any], answer: str | None, number: int) -> tuple[str, ...]:
    if answer is None:
        return ()
    told = held.get(answer.lower())
    texts = [one.strip() for one in (told if isinstance(told, list) else [told])
             if isinstance(one, str)]  # fmt: skip
    if not texts or not all(texts) or (isinstance(told, list) and len(texts) < len(told)):
        raise InvalidArgument(f"expected an answer in column {answer!r} of row {number}")
    return tuple(texts)


def _counted(found: Sequence[Question], count: int, path: str | Path) -> list[Question]:
    if len(found) != count:
        raise InvalidArgument(f"expected {count} questions in {path}, got {len(found)}")
    return list(found)


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
