from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    F32: _ClassVar[DType]
    F16: _ClassVar[DType]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    MEMORY: _ClassVar[Durability]
    LOGGED: _ClassVar[Durability]
    FSYNC: _ClassVar[Durability]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    COSINE: _ClassVar[Metric]
    DOT: _ClassVar[Metric]
    L2: _ClassVar[Metric]
DTYPE_UNSPECIFIED: DType
F32: DType
F16: DType
DURABILITY_UNSPECIFIED: Durability
MEMORY: Durability
LOGGED: Durability
FSYNC: Durability
METRIC_UNSPECIFIED: Metric
COSINE: Metric
DOT: Metric
L2: Metric

class Matrix(_message.Message):
    __slots__ = ("data", "dtype", "dim", "count")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: DType
    dim: int
    count: int
    def __init__(self, data: _Optional[bytes] = ..., dtype: _Optional[_Union[DType, str]] = ..., dim: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Strings(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("i64", "strings")
    I64_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    i64: bytes
    strings: Strings
    def __init__(self, i64: _Optional[bytes] = ..., strings: _Optional[_Union[Strings, _Mapping]] = ...) -> None: ...

class Payloads(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, json: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("sql", "json")
    SQL_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    sql: str
    json: bytes
    def __init__(self, sql: _Optional[str] = ..., json: _Optional[bytes] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("strategy", "live", "matching", "selectivity", "nprobe", "rerank", "rows_scanned", "stages", "target_recall", "expected_recall", "expected_low", "expected_high", "spread")
    class StagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    SELECTIVITY_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    ROWS_SCANNED_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    TARGET_RECALL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RECALL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LOW_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HIGH_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    live: int
    matching: int
    selectivity: float
    nprobe: int
    rerank: int
    rows_scanned: int
    stages: _containers.ScalarMap[str, float]
    target_recall: float
    expected_recall: float
    expected_low: float
    expected_high: float
    spread: Spread
    def __init__(self, strategy: _Optional[str] = ..., live: _Optional[int] = ..., matching: _Optional[int] = ..., selectivity: _Optional[float] = ..., nprobe: _Optional[int] = ..., rerank: _Optional[int] = ..., rows_scanned: _Optional[int] = ..., stages: _Optional[_Mapping[str, float]] = ..., target_recall: _Optional[float] = ..., expected_recall: _Optional[float] = ..., expected_low: _Optional[float] = ..., expected_high: _Optional[float] = ..., spread: _Optional[_Union[Spread, _Mapping]] = ...) -> None: ...

class Spread(_message.Message):
    __slots__ = ("shards", "c", "planned_recall", "measured_recall", "missing")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    PLANNED_RECALL_FIELD_NUMBER: _ClassVar[int]
    MEASURED_RECALL_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    shards: int
    c: int
    planned_recall: float
    measured_recall: float
    missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shards: _Optional[int] = ..., c: _Optional[int] = ..., planned_recall: _Optional[float] = ..., measured_recall: _Optional[float] = ..., missing: _Optional[_Iterable[int]] = ...) -> None: ...
