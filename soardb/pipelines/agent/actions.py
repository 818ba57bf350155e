"""What an agent does, as calls of Python: written into prompts, and read out of what models write.

    a model's text -> [actions.py] -> machine.py; prompts.py writes the same calls

A model writes comments and one assignment, `ACTION_SELECTED = ActionWrapper(...)`. It is taken
apart by Python's parser and nothing of it is run: calls of known names with keywords, whose values
are plain literals or such calls again. What is written here reads back as it was, whatever the
strings hold, so that a snippet can say nothing but data (arXiv 2312.10003, section 2.2).
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from soardb.errors import MalformedOutput

__all__ = [
    "END",
    "STEPS",
    "Action",
    "ActionWrapper",
    "Answer",
    "Check_Answer",
    "LinkSelection",
    "Output",
    "ResultItem",
    "Revise_Answer",
    "Search",
    "SearchResult",
    "SelectLink",
    "Step",
    "Terminate",
    "citations",
    "items_by_id",
    "parsed",
    "read_output",
    "read_value",
    "value_of",
    "written",
    "written_output",
]

END = "# [END]"
"""What a model writes after its assignment, and where it is stopped."""

Step = Literal["decision", "summary", "answer", "relevance", "grounding"]
STEPS: tuple[Step, ...] = get_args(Step)

# Trees that CPython 3.11 makes in two threads at once share a count of their depth, and it notices.
_PARSER = threading.RLock()
_LONGEST = 20_000  # characters of an output that is parsed
_CITED = re.compile(r"\[link_id=([0-9]{1,9}(?:, *[0-9]{1,9})*)\]")
_LARGEST = 10**9  # of a number


@dataclass(frozen=True, slots=True)
class ResultItem:
    """A snippet that was found. link_id: its own, within one trajectory."""

    link_id: int
    link_text: str
    snippet: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one search found, best first."""

    links: tuple[ResultItem, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """A search: with thoughts where it is past."""

    query: str
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class Terminate:
    """No more searches."""

    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class ActionWrapper:
    """A decision, which is a Search or a Terminate without thoughts, and the thoughts."""

    thoughts: str
    action: Search | Terminate


@dataclass(frozen=True, slots=True)
class LinkSelection:
    """What a model makes of a search."""

    grounded_summarization: str
    thoughts: str
    selected_link_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SelectLink:
    """The same when it is past: the selected links themselves, and no others."""

    selected_links: tuple[ResultItem, ...]
    grounded_summarization: str
    thoughts: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with citations, [link_id=3]."""

    thoughts: str
    answer: str


@dataclass(frozen=True, slots=True)
class Check_Answer:  # noqa: N801  the name that models write
    """The answer passed as it is."""

    passed: bool


@dataclass(frozen=True, slots=True)
class Revise_Answer:  # noqa: N801  the name that models write
    """A better answer."""

    revised_answer: str


Action = Search | SelectLink | Terminate | Answer
"""What PAST_ACTIONS holds."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a model wrote at a step: comment lines without their signs, and the action."""

    comments: tuple[str, ...]
    action: ActionWrapper | LinkSelection | Answer | Check_Answer | Revise_Answer


_OUTPUTS: Mapping[Step, tuple[type, ...]] = {
    "decision": (ActionWrapper,),
    "summary": (LinkSelection,),
    "answer": (Answer,),
    "relevance": (Check_Answer, Revise_Answer),
    "grounding": (Check_Answer, Revise_Answer),
}
# What stands behind the name in `ACTION_SELECTED: Command = `.
_HINTS: Mapping[Step, str] = {
    "decision": "",
    "summary": ": LinkSelection",
    "answer": ": Answer",
    "relevance": ": Command",
    "grounding": ": Command",
}
_KINDS: tuple[type, ...] = (
    ActionWrapper, Answer, Check_Answer, LinkSelection, ResultItem, Revise_Answer, Search,
    SearchResult, SelectLink, Terminate,
)  # fmt: skip
_CALLS: Mapping[str, type] = {one.__name__: one for one in _KINDS}


# ---- writing ----


def written(value: Any) -> str:
    """A value as a call of Python; read_value() gives it back. Empty thoughts are left out."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return repr(value).replace(END, "# \\x5bEND]")  # the same text, and no end of an output
    if isinstance(value, int):
        return repr(value)
    told = [(one.name, getattr(value, one.name), one.default) for one in fields(value)]
    said = [f"{name}={written(held)}" for name, held, default in told if held != default]
    return f"{type(value).__name__}({', '.join(said)})"


def written_output(step: Step, output: Output) -> str:
    """What a model is to write at a step, without END; read_output() gives it back.

    A comment is one line, whatever breaks it has.
    """
    lines = [f"# {' '.join(line.split())}".replace(END, "# [ END]") for line in output.comments]
    return "\n".join([*lines, f"ACTION_SELECTED{_HINTS[step]} = {written(output.action)}"])


# ---- reading ----


def read_output(step: Step, text: str) -> Output:
    """Take apart what a model wrote at a step, up to END if it is there.

    Errors: MalformedOutput, naming what was expected: one assignment to ACTION_SELECTED of a call
    that the step knows, comments before it, and no element empty but thoughts.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").partition(END)[0].strip()
    if len(text) > _LONGEST:
        raise MalformedOutput(f"expected at most {_LONGEST} characters, got {len(text)}")
    body = parsed(text).body
    if len(body) != 1 or not isinstance(body[0], ast.Assign | ast.AnnAssign):
        raise MalformedOutput(f"expected one assignment to ACTION_SELECTED, got {_cut(text)}")
    one = body[0]
    targets = one.targets if isinstance(one, ast.Assign) else [one.target]
    if not (len(targets) == 1 and isinstance(targets[0], ast.Name) and one.value is not None):
        raise MalformedOutput(f"expected one assignment to ACTION_SELECTED, got {_cut(text)}")
    if targets[0].id != "ACTION_SELECTED":
        raise MalformedOutput(
            f"expected an assignment to ACTION_SELECTED, got one to {targets[0].id}"
        )
    comments = [line.strip() for line in text.split("\n")[: one.lineno - 1]]
    value = value_of(one.value)
    if not isinstance(value, _OUTPUTS[step]):
        names = " or ".join(kind.__name__ for kind in _OUTPUTS[step])
        raise MalformedOutput(f"expected {names}, got {_cut(written(value))}")
    _expect_told(value)
    said = tuple(line[1:].strip() for line in comments if line)
    return Output(said, value)  # type: ignore[arg-type]  # the step's own types, checked above


def read_value(text: str) -> Any:
    """A value from written(), or a literal. Errors: MalformedOutput."""
    return value_of(parsed(text.strip(), "eval").body)


def citations(text: str) -> list[int]:
    """The ids in [link_id=3] and [link_id=3, 4], in order, each once."""
    found = [int(part) for group in _CITED.findall(text) for part in group.split(",")]
    return list(dict.fromkeys(found))


def value_of(node: ast.expr) -> Any:
    """The value of a piece of a syntax tree. Errors: MalformedOutput."""
    try:
        return _read(node)
    except RecursionError as error:
        raise MalformedOutput("expected values in each other, got too many of them") from error


def parsed(text: str, mode: Literal["exec", "eval"] = "exec") -> Any:
    """The syntax tree of Python. Errors: MalformedOutput."""
    try:
        with _PARSER, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            return ast.parse(text, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MalformedOutput(f"expected Python, got {_cut(text)}: {error}") from error


def _read(node: ast.expr) -> Any:
    """The value of a literal, a list of values, or a call that is known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node.value.encode()
        except UnicodeEncodeError as error:
            raise MalformedOutput(f"expected a text of Unicode: {error}") from error
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        if node.value >= _LARGEST:
            raise MalformedOutput(f"expected numbers below {_LARGEST:,}, got a larger one")
        return node.value
    if isinstance(node, ast.List):
        return tuple(map(_read, node.elts))
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise MalformedOutput(
            f"expected a call, a list or a literal, got {_cut(ast.unparse(node))}"
        )
    kind = _CALLS.get(node.func.id)
    if kind is None:
        raise MalformedOutput(f"expected one of {', '.join(_CALLS)}, got {_cut(node.func.id)}")
    names = [one.arg for one in node.keywords]
    if node.args or None in names or len(set(names)) < len(names):
        raise MalformedOutput(
            f"expected {node.func.id} with keywords, got {_cut(ast.unparse(node))}"
        )
    held = {one.arg: _read(one.value) for one in node.keywords if one.arg is not None}
    return _made(kind, held)


def _made(kind: type, held: dict[str, Any]) -> Any:
    known = {one.name: one for one in fields(kind)}
    if unknown := sorted(set(held) - set(known)):
        raise MalformedOutput(f"expected {', '.join(known)} of {kind.__name__}, got {unknown[0]}")
    for name, value in held.items():
        if not _EXPECTED[known[name].type](value):
            raise MalformedOutput(
                f"expected {name} of {kind.__name__} as {known[name].type}, got {_cut(repr(value))}"
            )
    try:
        return kind(**held)
    except TypeError as error:
        raise MalformedOutput(f"{kind.__name__}: {error}") from error


def _all(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(type(one) is kind for one in value)


# By the annotation of the field, as it is written above.
_EXPECTED: Mapping[Any, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "bool": lambda value: type(value) is bool,
    "str": lambda value: isinstance(value, str),
    "tuple[int, ...]": _all(int),
    "tuple[ResultItem, ...]": _all(ResultItem),
    "Search | Terminate": lambda value: isinstance(value, Search | Terminate),
}


def _expect_told(value: Any) -> None:
    """MalformedOutput where a query, a summary or an answer is an empty text; thoughts may be."""
    for one in fields(value):
        held = getattr(value, one.name)
        told = held.query if isinstance(held, Search) else held
        if isinstance(told, str) and one.name != "thoughts" and not told.strip():
            raise MalformedOutput(
                f"expected {one.name} of {type(value).__name__}, got an empty text"
            )


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def items_by_id(actions: Sequence[Action]) -> dict[int, ResultItem]:
    """The links that were selected so far, by id."""
    return {
        item.link_id: item
        for action in actions
        if isinstance(action, SelectLink)
        for item in action.selected_links
    }
