from soardb_proto.v1 import access_pb2 as _access_pb2
from soardb_proto.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Field(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class IndexOptions(_message.Message):
    __slots__ = ("nlist", "soar_lambda", "dims_per_block", "avq_eta", "anisotropic_threshold", "ncell", "include_primary", "overretrieve", "spherical", "init", "iterations", "points_per_centroid", "seed", "threads", "precision", "rotate", "layout")
    NLIST_FIELD_NUMBER: _ClassVar[int]
    SOAR_LAMBDA_FIELD_NUMBER: _ClassVar[int]
    DIMS_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    AVQ_ETA_FIELD_NUMBER: _ClassVar[int]
    ANISOTROPIC_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NCELL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PRIMARY_FIELD_NUMBER: _ClassVar[int]
    OVERRETRIEVE_FIELD_NUMBER: _ClassVar[int]
    SPHERICAL_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    POINTS_PER_CENTROID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ROTATE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    nlist: int
    soar_lambda: float
    dims_per_block: int
    avq_eta: float
    anisotropic_threshold: float
    ncell: int
    include_primary: bool
    overretrieve: float
    spherical: bool
    init: str
    iterations: int
    points_per_centroid: int
    seed: int
    threads: int
    precision: str
    rotate: bool
    layout: str
    def __init__(self, nlist: _Optional[int] = ..., soar_lambda: _Optional[float] = ..., dims_per_block: _Optional[int] = ..., avq_eta: _Optional[float] = ..., anisotropic_threshold: _Optional[float] = ..., ncell: _Optional[int] = ..., include_primary: bool = ..., overretrieve: _Optional[float] = ..., spherical: bool = ..., init: _Optional[str] = ..., iterations: _Optional[int] = ..., points_per_centroid: _Optional[int] = ..., seed: _Optional[int] = ..., threads: _Optional[int] = ..., precision: _Optional[str] = ..., rotate: bool = ..., layout: _Optional[str] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection", "dim", "metric", "schema", "index", "ttl", "exist_ok")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    dim: int
    metric: _types_pb2.Metric
    schema: _containers.RepeatedCompositeFieldContainer[Field]
    index: IndexOptions
    ttl: str
    exist_ok: bool
    def __init__(self, collection: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[_types_pb2.Metric, str]] = ..., schema: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., index: _Optional[_Union[IndexOptions, _Mapping]] = ..., ttl: _Optional[str] = ..., exist_ok: bool = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "dim", "metric", "schema", "ttl", "id_kind", "points", "seq", "id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ID_KIND_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: _types_pb2.Metric
    schema: _containers.RepeatedCompositeFieldContainer[Field]
    ttl: str
    id_kind: str
    points: int
    seq: int
    id: str
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[_types_pb2.Metric, str]] = ..., schema: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., ttl: _Optional[str] = ..., id_kind: _Optional[str] = ..., points: _Optional[int] = ..., seq: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsReply(_message.Message):
    __slots__ = ("names", "aliases")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.ScalarMap[str, str]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RenameCollectionRequest(_message.Message):
    __slots__ = ("collection", "new_name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    new_name: str
    def __init__(self, collection: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class RenameCollectionReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DropCollectionReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetAliasesRequest(_message.Message):
    __slots__ = ("aliases",)
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.ScalarMap[str, str]
    def __init__(self, aliases: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SetAliasesReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
