from soardb_proto.v1 import access_pb2 as _access_pb2
from soardb_proto.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WriteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_MODE_UNSPECIFIED: _ClassVar[WriteMode]
    UPSERT: _ClassVar[WriteMode]
    INSERT: _ClassVar[WriteMode]
WRITE_MODE_UNSPECIFIED: WriteMode
UPSERT: WriteMode
INSERT: WriteMode

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "ids", "vectors", "payloads", "ack", "mode", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _types_pb2.Ids
    vectors: _types_pb2.Matrix
    payloads: _types_pb2.Payloads
    ack: _types_pb2.Durability
    mode: WriteMode
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ..., ack: _Optional[_Union[_types_pb2.Durability, str]] = ..., mode: _Optional[_Union[WriteMode, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class WriteReply(_message.Message):
    __slots__ = ("count", "seq")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    count: int
    seq: int
    def __init__(self, count: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter", "ack", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _types_pb2.Ids
    filter: _types_pb2.Filter
    ack: _types_pb2.Durability
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., ack: _Optional[_Union[_types_pb2.Durability, str]] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdatePayloadRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter", "payload", "replace", "ack", "request_id", "payloads")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _types_pb2.Ids
    filter: _types_pb2.Filter
    payload: bytes
    replace: bool
    ack: _types_pb2.Durability
    request_id: str
    payloads: _types_pb2.Payloads
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., payload: _Optional[bytes] = ..., replace: bool = ..., ack: _Optional[_Union[_types_pb2.Durability, str]] = ..., request_id: _Optional[str] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ...) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class FlushReply(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "with_vectors", "min_seq")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _types_pb2.Ids
    with_vectors: bool
    min_seq: int
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., with_vectors: bool = ..., min_seq: _Optional[int] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("found", "payloads", "vectors")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    found: bytes
    payloads: _types_pb2.Payloads
    vectors: _types_pb2.Matrix
    def __init__(self, found: _Optional[bytes] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ...) -> None: ...

class TextQuery(_message.Message):
    __slots__ = ("words", "fields", "fusion", "vector_weight", "text_weight")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TEXT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    words: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    fusion: str
    vector_weight: float
    text_weight: float
    def __init__(self, words: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ..., fusion: _Optional[str] = ..., vector_weight: _Optional[float] = ..., text_weight: _Optional[float] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "like", "text", "filter", "limit", "nprobe", "rerank", "exact", "score_threshold", "group_by", "group_size", "with_payload", "with_vectors", "explain", "min_seq", "target_recall", "merge_recall", "measure_merge", "allow_partial")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    LIKE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    MERGE_RECALL_FIELD_NUMBER: _ClassVar[int]
    MEASURE_MERGE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vectors: _types_pb2.Matrix
    like: _types_pb2.Ids
    text: TextQuery
    filter: _types_pb2.Filter
    limit: int
    nprobe: int
    rerank: int
    exact: bool
    score_threshold: float
    group_by: str
    group_size: int
    with_payload: bool
    with_vectors: bool
    explain: bool
    min_seq: int
    target_recall: float
    merge_recall: float
    measure_merge: bool
    allow_partial: bool
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., like: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., text: _Optional[_Union[TextQuery, _Mapping]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., nprobe: _Optional[int] = ..., rerank: _Optional[int] = ..., exact: bool = ..., score_threshold: _Optional[float] = ..., group_by: _Optional[str] = ..., group_size: _Optional[int] = ..., with_payload: bool = ..., with_vectors: bool = ..., explain: bool = ..., min_seq: _Optional[int] = ..., target_recall: _Optional[float] = ..., merge_recall: _Optional[float] = ..., measure_merge: bool = ..., allow_partial: bool = ...) -> None: ...

class SearchReply(_message.Message):
    __slots__ = ("counts", "ids", "scores", "payloads", "vectors", "plan", "groups", "metric", "seq")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    ids: _types_pb2.Ids
    scores: bytes
    payloads: _types_pb2.Payloads
    vectors: _types_pb2.Matrix
    plan: _types_pb2.Plan
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    metric: _types_pb2.Metric
    seq: int
    def __init__(self, counts: _Optional[_Iterable[int]] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., scores: _Optional[bytes] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., plan: _Optional[_Union[_types_pb2.Plan, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., metric: _Optional[_Union[_types_pb2.Metric, str]] = ..., seq: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("value", "count")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    count: int
    def __init__(self, value: _Optional[bytes] = ..., count: _Optional[int] = ...) -> None: ...

class ScrollRequest(_message.Message):
    __slots__ = ("collection", "filter", "page_size", "page_token", "with_payload", "with_vectors", "min_seq")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: _types_pb2.Filter
    page_size: int
    page_token: str
    with_payload: bool
    with_vectors: bool
    min_seq: int
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_payload: bool = ..., with_vectors: bool = ..., min_seq: _Optional[int] = ...) -> None: ...

class ScrollReply(_message.Message):
    __slots__ = ("ids", "payloads", "vectors", "next_page_token")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ids: _types_pb2.Ids
    payloads: _types_pb2.Payloads
    vectors: _types_pb2.Matrix
    next_page_token: str
    def __init__(self, ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "filter", "min_seq")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: _types_pb2.Filter
    min_seq: int
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_seq: _Optional[int] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("collection", "mode", "ack", "stream_id", "batch", "ids", "vectors", "payloads")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    mode: WriteMode
    ack: _types_pb2.Durability
    stream_id: str
    batch: int
    ids: _types_pb2.Ids
    vectors: _types_pb2.Matrix
    payloads: _types_pb2.Payloads
    def __init__(self, collection: _Optional[str] = ..., mode: _Optional[_Union[WriteMode, str]] = ..., ack: _Optional[_Union[_types_pb2.Durability, str]] = ..., stream_id: _Optional[str] = ..., batch: _Optional[int] = ..., ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ...) -> None: ...

class IngestAck(_message.Message):
    __slots__ = ("batch", "count", "seq", "window")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    batch: int
    count: int
    seq: int
    window: int
    def __init__(self, batch: _Optional[int] = ..., count: _Optional[int] = ..., seq: _Optional[int] = ..., window: _Optional[int] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("collection", "batch_size", "min_seq")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    collection: str
    batch_size: int
    min_seq: int
    def __init__(self, collection: _Optional[str] = ..., batch_size: _Optional[int] = ..., min_seq: _Optional[int] = ...) -> None: ...

class ExportBatch(_message.Message):
    __slots__ = ("ids", "vectors", "payloads")
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    ids: _types_pb2.Ids
    vectors: _types_pb2.Matrix
    payloads: _types_pb2.Payloads
    def __init__(self, ids: _Optional[_Union[_types_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Union[_types_pb2.Matrix, _Mapping]] = ..., payloads: _Optional[_Union[_types_pb2.Payloads, _Mapping]] = ...) -> None: ...
