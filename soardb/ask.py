"""The gate for searches: what a caller asks becomes a checked search call here, and its answer.

    collection.py -> [ask.py] -> query.py

Every argument is looked at before anything is searched, so that a call which can never succeed
costs nothing and says why.

Nothing here plans or scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from soardb import deadline
from soardb.arrays import as_asked, as_int
from soardb.curve import as_only_target
from soardb.errors import NotFound
from soardb.filters import as_filter
from soardb.hits import HitColumns
from soardb.kernels.layout import F32
from soardb.options import (
    MAX_LIMIT,
    Filter,
    Fusion,
    as_number,
    as_share,
    check_group_by,
    check_sought,
    check_words,
    one_query,
)
from soardb.points import as_point_ids
from soardb.promises import ensure_curves
from soardb.query import SearchCall, Wanted
from soardb.reads import Reads
from soardb.schema import PointId
from soardb.search import Knobs

__all__ = ["ask"]


def ask(
    reads: Reads,
    query: npt.ArrayLike | None = None,
    limit: int = 10,
    *,
    k: int | None = None,
    id: PointId | None = None,
    text: str | None = None,
    text_fields: Sequence[str] | None = None,
    fusion: Fusion = "rrf",
    weights: tuple[float, float] = (1.0, 1.0),
    filter: Filter = None,
    nprobe: int | None = None,
    rerank: int | None = None,
    target_recall: float | None = None,
    exact: bool = False,
    threads: int = 1,
    score_threshold: float | None = None,
    group_by: str | None = None,
    group_size: int = 3,
    with_payload: bool = True,
    with_vectors: bool = False,
    explain: bool = False,
    merge_recall: float | None = None,
    measure_merge: bool = False,
    allow_partial: bool = False,
    timeout: float | None = None,
) -> HitColumns:
    """Check one search call and answer it; see Collection.search.

    Errors: InvalidArgument, NotFound for an unknown id, TimedOut.
    """
    with deadline.within(timeout):
        wanted = Wanted(with_payload, with_vectors)
        limit = as_int(limit if k is None else k, "limit", 1, MAX_LIMIT)
        where = as_filter(filter, reads.core.settings.schema)
        knobs = Knobs(
            None if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31),
            None if rerank is None else as_int(rerank, "rerank", 1, 2**31),
            bool(exact),
            as_int(threads, "threads", 1, 1024),
            None if target_recall is None else as_only_target(target_recall, nprobe, rerank, exact),
        )
        if merge_recall is not None:
            as_share(merge_recall, "merge_recall")
        check_sought(query, id, text)
        if score_threshold is not None:
            score_threshold = as_number(score_threshold, "score_threshold")
        if knobs.target is not None:
            reads.ready()
            ensure_curves(reads.core, reads.writer)
        left_out = None
        if id is not None:
            left_out = id
            query = _vector_of(reads, id)
        job = SearchCall(
            reads,
            limit,
            where,
            knobs,
            wanted,
            score_threshold,
            explain,
            left_out,
            text_fields,
        )
        if text is not None:
            how, shares = check_words(text, text_fields, fusion, weights, score_threshold, group_by)
            one = None if query is None else one_query(as_asked(query, reads.core.settings.d))
            return job.hybrid(one, text, how, shares)
        assert query is not None
        if group_by is not None:
            check_group_by(group_by, reads.core.settings.schema.fields.get(group_by))
            one = one_query(as_asked(query, reads.core.settings.d))
            return job.grouped(one, group_by, as_int(group_size, "group_size", 1, 1000))
        return job.many(as_asked(query, reads.core.settings.d))


def _vector_of(reads: Reads, point_id: PointId) -> F32:
    (point,) = reads.points(as_point_ids([point_id]), with_vectors=True)
    if point is None or point.vector is None:
        raise NotFound(
            f"expected the id of a point of {reads.core.settings.name!r}, got {point_id!r}"
        )
    return point.vector
