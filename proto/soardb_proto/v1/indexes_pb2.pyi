from soardb_proto.v1 import access_pb2 as _access_pb2
from soardb_proto.v1 import operations_pb2 as _operations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class IndexStatusRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class IndexStatus(_message.Message):
    __slots__ = ("points", "struck", "since_generation", "seq", "nlist", "is_exact", "damage", "memory_bytes", "disk_bytes")
    class MemoryBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class DiskBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    POINTS_FIELD_NUMBER: _ClassVar[int]
    STRUCK_FIELD_NUMBER: _ClassVar[int]
    SINCE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    NLIST_FIELD_NUMBER: _ClassVar[int]
    IS_EXACT_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    points: int
    struck: int
    since_generation: int
    seq: int
    nlist: int
    is_exact: bool
    damage: str
    memory_bytes: _containers.ScalarMap[str, int]
    disk_bytes: _containers.ScalarMap[str, int]
    def __init__(self, points: _Optional[int] = ..., struck: _Optional[int] = ..., since_generation: _Optional[int] = ..., seq: _Optional[int] = ..., nlist: _Optional[int] = ..., is_exact: bool = ..., damage: _Optional[str] = ..., memory_bytes: _Optional[_Mapping[str, int]] = ..., disk_bytes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class BuildRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class TuneRequest(_message.Message):
    __slots__ = ("collection", "k", "queries", "nprobes", "reranks", "seed")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    NPROBES_FIELD_NUMBER: _ClassVar[int]
    RERANKS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    k: int
    queries: int
    nprobes: _containers.RepeatedScalarFieldContainer[int]
    reranks: _containers.RepeatedScalarFieldContainer[int]
    seed: int
    def __init__(self, collection: _Optional[str] = ..., k: _Optional[int] = ..., queries: _Optional[int] = ..., nprobes: _Optional[_Iterable[int]] = ..., reranks: _Optional[_Iterable[int]] = ..., seed: _Optional[int] = ...) -> None: ...
