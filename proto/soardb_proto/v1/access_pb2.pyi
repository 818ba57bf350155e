from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    READ: _ClassVar[Scope]
    WRITE: _ClassVar[Scope]
    ADMIN: _ClassVar[Scope]
SCOPE_UNSPECIFIED: Scope
READ: Scope
WRITE: Scope
ADMIN: Scope
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor

class Access(_message.Message):
    __slots__ = ("scope", "general", "writer")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    GENERAL_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    general: bool
    writer: bool
    def __init__(self, scope: _Optional[_Union[Scope, str]] = ..., general: bool = ..., writer: bool = ...) -> None: ...
