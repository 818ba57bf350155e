"""What callers may say in a call, and the checks of it that need no collection.

    collection.py, ask.py, soardb_client -> [options.py] -> filters/expr.py, schema.py

The engine and a server's client take the same arguments and refuse them in the same words, so the
words are here once.

Nothing here touches a collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypedDict, get_args

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.filters.expr import Expr
from soardb.kernels.layout import F32
from soardb.schema import PointId, shown

__all__ = [
    "ACKS",
    "FUSIONS",
    "MAX_LIMIT",
    "MAX_PAGE",
    "MAX_REQUEST_ID",
    "MAX_WINDOW",
    "Ack",
    "Filter",
    "Fusion",
    "Mode",
    "SearchOptions",
    "as_fusion",
    "as_mode",
    "as_number",
    "as_settings",
    "as_share",
    "as_weights",
    "check_group_by",
    "check_request_id",
    "check_sought",
    "check_words",
    "one_query",
]

MAX_LIMIT = 10_000
MAX_PAGE = 10_000
MAX_REQUEST_ID = 128
MAX_WINDOW = 10_000
_LARGEST_WEIGHT = 1e30

Filter = Expr | Mapping[str, Any] | str | None
Ack = Literal["fsync", "logged", "memory"]
ACKS: tuple[Ack, ...] = get_args(Ack)
Fusion = Literal["rrf", "weighted"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
Mode = Literal["upsert", "insert"]


class SearchOptions(TypedDict, total=False):
    """The keywords of Collection.search, which says what they mean."""

    k: int | None
    id: PointId | None
    text: str | None
    text_fields: Sequence[str] | None
    fusion: Fusion
    weights: tuple[float, float]
    filter: Filter
    nprobe: int | None
    rerank: int | None
    target_recall: float | None
    exact: bool
    threads: int
    score_threshold: float | None
    group_by: str | None
    group_size: int
    with_payload: bool
    with_vectors: bool
    explain: bool
    merge_recall: float | None
    measure_merge: bool
    allow_partial: bool
    timeout: float | None


# ---- writing ----


def as_mode(mode: object, ack: str) -> Mode:
    """Whether ids that are there are replaced or refused. Errors: InvalidArgument."""
    if mode == "upsert":
        return "upsert"
    if mode != "insert":
        raise InvalidArgument(f"expected mode one of upsert, insert, got {mode!r}")
    if ack == "memory":
        raise InvalidArgument(
            "expected ack 'fsync' or 'logged' for insert, which has to look first; got 'memory'"
        )
    return "insert"


def check_request_id(request_id: object, ack: str) -> None:
    """InvalidArgument for an id of another form, or one of a write that nobody waits for."""
    if request_id is None:
        return
    is_text = isinstance(request_id, str) and request_id.isprintable()
    if not is_text or not 1 <= len(str(request_id)) <= MAX_REQUEST_ID:
        raise InvalidArgument(
            f"expected request_id of 1..{MAX_REQUEST_ID} printable characters, got "
            f"{shown(request_id)}"
        )
    if ack == "memory":
        raise InvalidArgument(
            "expected ack 'fsync' or 'logged' beside request_id, whose answer is remembered with "
            "the write; got 'memory', which waits for none"
        )


# ---- searching ----


def as_number(value: Any, name: str) -> float:
    """A finite number. Errors: InvalidArgument."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise InvalidArgument(f"expected {name} as a finite number, got {shown(value)}")
    return float(value)


def as_share(value: object, name: str) -> float:
    """A share above 0 and at most 1. Errors: InvalidArgument."""
    number = as_number(value, name)
    if not 0 < number <= 1:
        raise InvalidArgument(f"expected {name} above 0 and at most 1, got {shown(value)}")
    return number


def check_sought(query: object, id: object, text: object) -> None:
    """InvalidArgument where it is not said, or said twice, what is searched for."""
    if (query is not None and id is not None) or query is id is text is None:
        raise InvalidArgument("expected one of query and id, or text, or text beside one")


def check_words(
    text: object,
    text_fields: Sequence[str] | None,
    fusion: object,
    weights: Any,
    score_threshold: float | None,
    group_by: str | None,
) -> tuple[Fusion, tuple[float, float]]:
    """How a search by words is fused, and by which weights. Errors: InvalidArgument."""
    if not isinstance(text, str):
        raise InvalidArgument(f"expected text as a string, got {shown(text)}")
    if isinstance(text_fields, str):
        raise InvalidArgument(f"expected text_fields as a list, got {shown(text_fields)}")
    checked = as_weights(weights)
    found = as_fusion(fusion)
    if group_by is not None or score_threshold is not None:
        raise InvalidArgument(
            "expected no group_by or score_threshold beside text: its scores are ranks"
        )
    return found, checked


def one_query(queries: F32) -> F32:
    """Queries (1, d) where no more can be asked at once. Errors: InvalidArgument."""
    if len(queries) != 1:
        raise InvalidArgument(f"expected one query here, got {len(queries)}")
    return queries


def as_weights(weights: Any) -> tuple[float, float]:
    """The weights of vector and text. Errors: InvalidArgument."""
    if not isinstance(weights, list | tuple) or len(weights) != 2:
        raise InvalidArgument(
            f"expected weights as two numbers, of (vector, text), got {shown(weights)}"
        )
    found = as_number(weights[0], "weights[0]"), as_number(weights[1], "weights[1]")
    if max(map(abs, found)) > _LARGEST_WEIGHT:
        raise InvalidArgument(
            f"expected weights within 1e30, whose scores are numbers, got {found}"
        )
    return found


def as_fusion(fusion: object) -> Fusion:
    """How two rankings become one. Errors: InvalidArgument."""
    for known in FUSIONS:
        if fusion == known:
            return known
    raise InvalidArgument(f"expected fusion one of {', '.join(FUSIONS)}, got {fusion!r}")


def check_group_by(name: str, kind: str | None) -> None:
    """InvalidArgument for a field, of this declared type or none, that makes no groups."""
    if kind not in ("int", "keyword", "bool"):
        raise InvalidArgument(
            f"expected group_by a declared field of type int, keyword or bool, got {name!r}"
            + (f" of type {kind}" if kind else "")
        )


def as_settings(values: Sequence[int] | None, name: str) -> list[int] | None:
    """Settings to measure, each once, in order; None where they are to be chosen."""
    if values is None:
        return None
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not len(values):
        raise InvalidArgument(f"expected {name} as a list of integers, got {shown(values)}")
    return sorted({as_int(value, name, 1, 2**31) for value in values})
