"""What REST takes and gives: JSON bodies <-> the messages of the protocol, under the same names.

    rest.py -> [rest_bodies.py] -> soardb_proto

Vectors are arrays of numbers, or base64 of little-endian float32 under `vectors_b64` with their
`dim`. Everything is compared with the engine's rules behind the same door as gRPC; here only the
shape is checked.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, model_validator

from soardb.errors import InvalidArgument
from soardb_proto import columns
from soardb_proto.v1 import agent_pb2, collections_pb2, models_pb2, points_pb2, types_pb2
from soardb_proto.words import ACKS, METRICS
from soardb_service.convert import json_of

__all__ = [
    "AskBody",
    "CountBody",
    "CreateBody",
    "DeleteBody",
    "GenerateBody",
    "GetBody",
    "PairBody",
    "ScrollBody",
    "SearchBody",
    "UpdatePayloadBody",
    "UpsertBody",
    "plain",
]

# Each list ends at its first mistake: else a body of millions of them takes minutes to refuse.
Row = Annotated[list[float], Field(fail_fast=True)]
Rows = Annotated[list[Row], Field(fail_fast=True)]
Integers = Annotated[list[int], Field(fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
PointIds = Integers | Texts
Filter = dict[str, Any] | str
AckName = Literal["fsync", "logged", "memory"]

_MOST_MEMBERS = 64
_MOST_OPTIONS = 4096


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _is_small(cls, given: Any) -> Any:
        """Members are checked all before the first mistake is told, so there must be few."""
        if isinstance(given, dict):
            if len(given) > _MOST_MEMBERS:
                raise ValueError(f"at most {_MOST_MEMBERS} members, got {len(given):,}")
            for name in ("schema", "index", "metrics"):
                part = given.get(name)
                if isinstance(part, dict) and len(part) > _MOST_OPTIONS:
                    raise ValueError(f"at most {_MOST_OPTIONS} entries of {name}")
        return given


class CreateBody(_Body):
    """A collection to make."""

    collection: str
    dim: int
    metric: Literal["cosine", "dot", "l2"] = "cosine"
    fields: dict[str, str] = Field(
        default_factory=dict, alias="schema", description="Payload fields that filters use."
    )
    index: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="Options of the index; chosen by size unless told."
    )
    ttl: str | None = None
    exist_ok: bool = False

    def message(self) -> collections_pb2.CreateCollectionRequest:
        """As the protocol has it. Errors: InvalidArgument."""
        out = collections_pb2.CreateCollectionRequest(
            collection=self.collection,
            dim=_uint(self.dim, "dim"),
            metric=METRICS[self.metric],
            schema=[collections_pb2.Field(name=n, type=t) for n, t in self.fields.items()],
            ttl=self.ttl,
            exist_ok=self.exist_ok,
        )
        for name, value in self.index.items():
            try:
                setattr(out.index, name, value)
            except (AttributeError, TypeError, ValueError) as error:
                raise InvalidArgument(f"expected another option of the index: {error}") from None
        return out


class UpsertBody(_Body):
    """Points to store."""

    ids: PointIds
    vectors: Rows | None = None
    vectors_b64: str | None = None
    dim: int | None = None
    payloads: Annotated[list[dict[str, Any] | None], Field(fail_fast=True)] | None = None
    ack: AckName = "fsync"
    mode: Literal["upsert", "insert"] = "upsert"
    request_id: str = ""

    def message(self, collection: str) -> points_pb2.UpsertRequest:
        """As the protocol has it. Errors: InvalidArgument."""
        matrix = _matrix(self.vectors, self.vectors_b64, self.dim)
        if matrix is None:
            raise InvalidArgument("expected vectors or vectors_b64, got neither")
        out = points_pb2.UpsertRequest(
            collection=collection,
            ids=_ids(self.ids),
            vectors=matrix,
            ack=ACKS[self.ack],
            mode=points_pb2.INSERT if self.mode == "insert" else points_pb2.UPSERT,
            request_id=self.request_id,
        )
        if self.payloads is not None:
            out.payloads.json.extend(_json(payload or {}) for payload in self.payloads)
        return out


class _Chosen(_Body):
    ids: PointIds | None = None
    filter: Filter | None = None
    ack: AckName = "fsync"
    request_id: str = ""

    def _choose(self, out: Any) -> None:
        if self.ids is not None and self.filter is not None:
            raise InvalidArgument("expected either ids or a filter, got both or neither")
        if self.ids is not None:
            out.ids.CopyFrom(_ids(self.ids))
        elif self.filter is not None:
            out.filter.CopyFrom(_filter(self.filter))
        out.ack = ACKS[self.ack]
        out.request_id = self.request_id


class DeleteBody(_Chosen):
    """Points to delete: of ids, or all that match."""

    def message(self, collection: str) -> points_pb2.DeleteRequest:
        """As the protocol has it."""
        out = points_pb2.DeleteRequest(collection=collection)
        self._choose(out)
        return out


class UpdatePayloadBody(_Chosen):
    """Payloads to change: of ids, or of all that match."""

    payload: dict[str, Any] | list[dict[str, Any]]
    replace: bool = False

    def message(self, collection: str) -> points_pb2.UpdatePayloadRequest:
        """As the protocol has it."""
        out = points_pb2.UpdatePayloadRequest(collection=collection, replace=self.replace)
        self._choose(out)
        if isinstance(self.payload, dict):
            out.payload = _json(self.payload)
        else:
            out.payloads.json.extend(map(_json, self.payload))
        return out


class GetBody(_Body):
    """Ids of points to fetch."""

    ids: PointIds
    with_vectors: bool = False
    min_seq: int = 0

    def message(self, collection: str) -> points_pb2.GetRequest:
        """As the protocol has it."""
        return points_pb2.GetRequest(
            collection=collection,
            ids=_ids(self.ids),
            with_vectors=self.with_vectors,
            min_seq=_uint(self.min_seq, "min_seq", 2**64),
        )

    def answer(self, reply: points_pb2.GetReply) -> dict[str, Any]:
        """{"points": [point or null, one an id]}."""
        found = columns.unpack_numbers(reply.found, "<u4", "found").tolist()
        rows = _rows(reply.vectors) if self.with_vectors else None
        points: list[dict[str, Any] | None] = [None] * len(self.ids)
        for i, place in enumerate(found):
            points[place] = {"id": self.ids[place], "payload": json.loads(reply.payloads.json[i])}
            if rows is not None:
                points[place]["vector"] = rows[i]
        return {"points": points}


class ScrollBody(_Body):
    """A page of points."""

    filter: Filter | None = None
    page_size: int = 100
    page_token: str = ""
    with_payload: bool = True
    with_vectors: bool = False
    min_seq: int = 0

    def message(self, collection: str) -> points_pb2.ScrollRequest:
        """As the protocol has it."""
        return points_pb2.ScrollRequest(
            collection=collection,
            filter=_filter(self.filter),
            page_size=_uint(self.page_size, "page_size"),
            page_token=self.page_token,
            with_payload=self.with_payload,
            with_vectors=self.with_vectors,
            min_seq=_uint(self.min_seq, "min_seq", 2**64),
        )

    def answer(self, reply: points_pb2.ScrollReply) -> dict[str, Any]:
        """{"points": [...], "next_page_token": token or null}."""
        ids = columns.plain_ids(reply.ids)
        points: list[dict[str, Any]] = [{"id": point_id} for point_id in ids]
        if self.with_payload:
            for point, data in zip(points, reply.payloads.json, strict=True):
                point["payload"] = json.loads(data)
        if self.with_vectors:
            for point, row in zip(points, _rows(reply.vectors), strict=True):
                point["vector"] = row
        return {"points": points, "next_page_token": reply.next_page_token or None}


class CountBody(_Body):
    """Points to count; all of them without a filter."""

    filter: Filter | None = None
    min_seq: int = 0

    def message(self, collection: str) -> points_pb2.CountRequest:
        """As the protocol has it."""
        return points_pb2.CountRequest(
            collection=collection,
            filter=_filter(self.filter),
            min_seq=_uint(self.min_seq, "min_seq", 2**64),
        )


class SearchBody(_Body):
    """A search: by one vector, many, the vector of a point, words, or words beside one of these."""

    vector: Row | None = None
    vectors: Rows | None = None
    vectors_b64: str | None = None
    dim: int | None = None
    id: int | str | None = Field(None, description="The vector of this point, which is left out.")
    text: str | None = None
    text_fields: Annotated[list[str], Field(fail_fast=True)] = Field(default_factory=list)
    fusion: Literal["rrf", "weighted"] = "rrf"
    weights: tuple[float, float] = (1.0, 1.0)
    filter: Filter | None = None
    limit: int = 10
    nprobe: int | None = None
    rerank: int | None = None
    target_recall: float | None = None
    exact: bool = False
    score_threshold: float | None = None
    group_by: str = ""
    group_size: int = 3
    with_payload: bool = True
    with_vectors: bool = False
    explain: bool = False
    merge_recall: float | None = None
    measure_merge: bool = False
    allow_partial: bool = False
    min_seq: int = 0

    def message(self, collection: str) -> points_pb2.SearchRequest:
        """As the protocol has it. Errors: InvalidArgument."""
        given = [self.vector, self.vectors, self.vectors_b64, self.id]
        if sum(x is not None for x in given) > 1:
            raise InvalidArgument(
                "expected one of vector, vectors, vectors_b64 and id, got several"
            )
        vectors = self.vectors if self.vector is None else [self.vector]
        out = points_pb2.SearchRequest(
            collection=collection,
            vectors=_matrix(vectors, self.vectors_b64, self.dim),
            filter=_filter(self.filter),
            limit=_uint(self.limit, "limit", least=1),
            nprobe=None if self.nprobe is None else _uint(self.nprobe, "nprobe"),
            rerank=None if self.rerank is None else _uint(self.rerank, "rerank"),
            target_recall=self.target_recall,
            exact=self.exact,
            score_threshold=self.score_threshold,
            group_by=self.group_by,
            group_size=_uint(self.group_size, "group_size"),
            with_payload=self.with_payload,
            with_vectors=self.with_vectors,
            explain=self.explain,
            merge_recall=self.merge_recall,
            measure_merge=self.measure_merge,
            allow_partial=self.allow_partial,
            min_seq=_uint(self.min_seq, "min_seq", 2**64),
        )
        if self.id is not None:
            out.like.CopyFrom(_ids([self.id]))
        if self.text is not None:
            out.text.CopyFrom(
                points_pb2.TextQuery(
                    words=self.text,
                    fields=self.text_fields,
                    fusion=self.fusion,
                    vector_weight=self.weights[0],
                    text_weight=self.weights[1],
                )
            )
        return out

    def answer(self, reply: points_pb2.SearchReply) -> dict[str, Any]:
        """{"results": [{"ids", "scores", ...} of each query], "plan", "seq"}."""
        ids = columns.plain_ids(reply.ids)
        scores = columns.unpack_numbers(reply.scores, "<f4", "scores").tolist()
        rows = _rows(reply.vectors) if self.with_vectors else None
        results, start = [], 0
        for count in reply.counts:
            part = slice(start, start + count)
            result: dict[str, Any] = {"ids": ids[part], "scores": scores[part]}
            if self.with_payload:
                result["payloads"] = [json.loads(data) for data in reply.payloads.json[part]]
            if rows is not None:
                result["vectors"] = rows[part]
            results.append(result)
            start += count
        out: dict[str, Any] = {"results": results, "seq": reply.seq}
        if reply.groups:
            out["groups"] = [{"value": json.loads(g.value), "count": g.count} for g in reply.groups]
        if reply.HasField("plan"):
            out["plan"] = plain(reply.plan)
        return out


class PairBody(_Body):
    """What was measured of a draft."""

    draft: str
    metrics: dict[str, float] = Field(default_factory=dict)

    def message(self, target: str) -> models_pb2.PairModelsRequest:
        """As the protocol has it."""
        return models_pb2.PairModelsRequest(target=target, draft=self.draft, metrics=self.metrics)


class GenerateBody(_Body):
    """What to write on from, and how."""

    prompt: str
    draft_model: str | None = Field(None, description="Speculate with this model.")
    collection: str | None = Field(
        None, description="Texts of its closest points go before the prompt."
    )
    field: str = Field("text", description="The payload field with the text.")
    passages: int = Field(3, description="How many of them.")
    vector: Row | None = Field(None, description="Search by this in place of the prompt's words.")
    draft_passages: bool = Field(False, description="Speculate with these passages.")
    gamma: int = 5
    longest: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def message(self, model: str) -> models_pb2.GenerateRequest:
        """As the protocol has it. Errors: InvalidArgument."""
        if self.collection is None and (self.draft_passages or self.vector is not None):
            raise InvalidArgument("expected collection beside draft_passages or vector, got none")
        if self.draft_passages and self.draft_model is not None:
            raise InvalidArgument("expected one of draft_model and draft_passages, got both")
        out = models_pb2.GenerateRequest(
            model=model,
            prompt=self.prompt,
            draft_model=self.draft_model,
            gamma=_uint(self.gamma, "gamma", least=1),
            longest=_uint(self.longest, "longest", least=1),
            sampling=models_pb2.Sampling(
                temperature=self.temperature,
                top_k=None if self.top_k is None else _uint(self.top_k, "top_k"),
                top_p=self.top_p,
                seed=_uint(self.seed, "seed", 2**63),
            ),
        )
        if self.draft_passages:
            out.draft_passages = True
        if self.collection is not None:
            out.retrieval.CopyFrom(
                models_pb2.Retrieval(
                    collection=self.collection,
                    field=self.field,
                    passages=_uint(self.passages, "passages", least=1),
                    vector=_matrix(None if self.vector is None else [self.vector], None, None),
                )
            )
        return out


class AskBody(_Body):
    """A question, and how it is answered."""

    question: str
    model: str = Field(description="Of the registry, or one that the settings name.")
    text_field: str = Field("text", description="The payload field with the passages.")
    title_field: str | None = Field(None, description="That with their titles.")
    embedder: str | None = Field(None, description="Search by vectors of this model too.")
    filter: Filter | None = None
    passages: int = Field(3, description="That a search finds.")
    passage_length: int = Field(500, description="Characters of one that are shown.")
    searches: int = Field(10, description="At most.")
    samples: int = Field(4, description="Of each step.")
    temperature: float = 0.5
    longest: int = Field(512, description="Tokens of a sample.")
    self_checks: bool = True
    shots: bool | None = Field(
        None, description="Show examples; null: to models that were not fine-tuned for it."
    )
    grammars: bool = False
    seed: int = 0

    def message(self, collection: str) -> agent_pb2.AskRequest:
        """As the protocol has it. Errors: InvalidArgument."""
        request = agent_pb2.AskRequest(
            collection=collection,
            question=self.question,
            model=self.model,
            text_field=self.text_field,
            title_field=self.title_field or "",
            embedder=self.embedder or "",
            filter=_filter(self.filter),
            passages=_uint(self.passages, "passages", least=1),
            passage_length=_uint(self.passage_length, "passage_length", least=1),
            searches=_uint(self.searches, "searches", least=1),
            samples=_uint(self.samples, "samples", least=1),
            temperature=self.temperature,
            longest=_uint(self.longest, "longest", least=1),
            seed=_uint(self.seed, "seed", 2**63),
            self_checks=self.self_checks,
            grammars=self.grammars,
        )
        if self.shots is not None:
            request.shots = self.shots
        return request


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON under the protocol's own names; 64-bit numbers stay numbers."""
    found = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: _number(message, name, value) for name, value in found.items()}


def _number(message: Message, name: str, value: Any) -> Any:
    """64-bit integers, which protobuf's JSON writes as strings; and bytes that hold JSON."""
    field = message.DESCRIPTOR.fields_by_name[name]
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        is_long = kind.fields_by_name["value"].cpp_type in (2, 4)
        return {k: int(v) if is_long else v for k, v in value.items()}
    if field.cpp_type in (2, 4) and not isinstance(value, list):  # CPPTYPE_INT64, CPPTYPE_UINT64
        return int(value)
    if field.type == field.TYPE_BYTES:
        data = getattr(message, name)
        return json_of(data, name) if data else None
    if kind is not None and kind.full_name.startswith("soardb."):
        part = getattr(message, name)
        return [plain(item) for item in part] if isinstance(value, list) else plain(part)
    return value


# ---- pieces ----


def _uint(value: int, name: str, most: int = 2**32, least: int = 0) -> int:
    if not least <= value < most:
        raise InvalidArgument(f"expected {name} within {least}..{most - 1}, got {value}")
    return value


def _ids(ids: list[Any]) -> types_pb2.Ids:
    if len({type(point_id) for point_id in ids}) > 1:
        raise InvalidArgument("expected ids of one kind, got integers and strings together")
    try:
        return columns.pack_ids(ids)
    except OverflowError:
        raise InvalidArgument(f"expected ids within int64, got {max(ids, key=abs)}") from None


def _rows(matrix: types_pb2.Matrix) -> list[list[float]]:
    found: list[list[float]] = columns.unpack_matrix(matrix).tolist()
    return found


def _matrix(
    vectors: list[list[float]] | None, data: str | None, dim: int | None
) -> types_pb2.Matrix | None:
    if data is not None:
        if vectors is not None or dim is None or dim < 1:
            raise InvalidArgument("expected vectors_b64 with its dim and without vectors")
        try:
            raw = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise InvalidArgument(f"expected vectors_b64 as base64: {error}") from None
        return types_pb2.Matrix(
            data=raw, dtype=types_pb2.F32, dim=_uint(dim, "dim"), count=len(raw) // (4 * dim)
        )
    if vectors is None:
        return None
    lengths = {len(row) for row in vectors}
    if len(lengths) > 1:
        raise InvalidArgument(f"expected vectors of one length, got {sorted(lengths)}")
    with np.errstate(over="ignore"):
        rows = np.array(vectors, np.float32).reshape(len(vectors), lengths.pop() if lengths else 0)
    return columns.pack_matrix(rows)


def _filter(filter: Filter | None) -> types_pb2.Filter | None:
    if filter is None:
        return None
    if isinstance(filter, str):
        return types_pb2.Filter(sql=filter)
    return types_pb2.Filter(json=_json(filter))


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"expected JSON: {error}") from None
