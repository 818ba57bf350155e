from soardb_proto.v1 import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfoReply(_message.Message):
    __slots__ = ("version", "simd", "caps", "grants", "is_writer", "uptime_s")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIMD_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    IS_WRITER_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    version: str
    simd: str
    caps: Caps
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    is_writer: bool
    uptime_s: float
    def __init__(self, version: _Optional[str] = ..., simd: _Optional[str] = ..., caps: _Optional[_Union[Caps, _Mapping]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., is_writer: bool = ..., uptime_s: _Optional[float] = ...) -> None: ...

class Caps(_message.Message):
    __slots__ = ("message_bytes", "rows", "queries", "limit", "page_size", "filter_nodes", "filter_depth", "streams", "ingest_window")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FILTER_NODES_FIELD_NUMBER: _ClassVar[int]
    FILTER_DEPTH_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    INGEST_WINDOW_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    rows: int
    queries: int
    limit: int
    page_size: int
    filter_nodes: int
    filter_depth: int
    streams: int
    ingest_window: int
    def __init__(self, message_bytes: _Optional[int] = ..., rows: _Optional[int] = ..., queries: _Optional[int] = ..., limit: _Optional[int] = ..., page_size: _Optional[int] = ..., filter_nodes: _Optional[int] = ..., filter_depth: _Optional[int] = ..., streams: _Optional[int] = ..., ingest_window: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("collections", "scope")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    collections: str
    scope: _access_pb2.Scope
    def __init__(self, collections: _Optional[str] = ..., scope: _Optional[_Union[_access_pb2.Scope, str]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsReply(_message.Message):
    __slots__ = ("memory_held", "memory_reserved", "memory_limit", "collections", "calls_in_flight")
    MEMORY_HELD_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RESERVED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    memory_held: int
    memory_reserved: int
    memory_limit: int
    collections: int
    calls_in_flight: int
    def __init__(self, memory_held: _Optional[int] = ..., memory_reserved: _Optional[int] = ..., memory_limit: _Optional[int] = ..., collections: _Optional[int] = ..., calls_in_flight: _Optional[int] = ...) -> None: ...
