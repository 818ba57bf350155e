from soardb_proto.v1 import access_pb2 as _access_pb2
from soardb_proto.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AskRequest(_message.Message):
    __slots__ = ("collection", "question", "model", "text_field", "title_field", "embedder", "filter", "passages", "searches", "samples", "temperature", "longest", "seed", "self_checks", "shots", "grammars", "passage_length")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SELF_CHECKS_FIELD_NUMBER: _ClassVar[int]
    SHOTS_FIELD_NUMBER: _ClassVar[int]
    GRAMMARS_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    collection: str
    question: str
    model: str
    text_field: str
    title_field: str
    embedder: str
    filter: _types_pb2.Filter
    passages: int
    searches: int
    samples: int
    temperature: float
    longest: int
    seed: int
    self_checks: bool
    shots: bool
    grammars: bool
    passage_length: int
    def __init__(self, collection: _Optional[str] = ..., question: _Optional[str] = ..., model: _Optional[str] = ..., text_field: _Optional[str] = ..., title_field: _Optional[str] = ..., embedder: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., passages: _Optional[int] = ..., searches: _Optional[int] = ..., samples: _Optional[int] = ..., temperature: _Optional[float] = ..., longest: _Optional[int] = ..., seed: _Optional[int] = ..., self_checks: bool = ..., shots: bool = ..., grammars: bool = ..., passage_length: _Optional[int] = ...) -> None: ...

class AskReply(_message.Message):
    __slots__ = ("step", "answer")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    step: AgentStep
    answer: AgentAnswer
    def __init__(self, step: _Optional[_Union[AgentStep, _Mapping]] = ..., answer: _Optional[_Union[AgentAnswer, _Mapping]] = ...) -> None: ...

class AgentStep(_message.Message):
    __slots__ = ("step", "text", "comments", "thoughts", "query", "found", "said", "selected", "samples", "perplexity")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COMMENTS_FIELD_NUMBER: _ClassVar[int]
    THOUGHTS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    SAID_FIELD_NUMBER: _ClassVar[int]
    SELECTED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    step: str
    text: str
    comments: _containers.RepeatedScalarFieldContainer[str]
    thoughts: str
    query: str
    found: _containers.RepeatedCompositeFieldContainer[FoundPassage]
    said: str
    selected: _containers.RepeatedScalarFieldContainer[int]
    samples: int
    perplexity: float
    def __init__(self, step: _Optional[str] = ..., text: _Optional[str] = ..., comments: _Optional[_Iterable[str]] = ..., thoughts: _Optional[str] = ..., query: _Optional[str] = ..., found: _Optional[_Iterable[_Union[FoundPassage, _Mapping]]] = ..., said: _Optional[str] = ..., selected: _Optional[_Iterable[int]] = ..., samples: _Optional[int] = ..., perplexity: _Optional[float] = ...) -> None: ...

class FoundPassage(_message.Message):
    __slots__ = ("link", "point", "title", "text")
    LINK_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    link: int
    point: str
    title: str
    text: str
    def __init__(self, link: _Optional[int] = ..., point: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class AgentAnswer(_message.Message):
    __slots__ = ("answer", "draft", "after_relevance", "sources", "searches", "prompt_tokens", "completion_tokens", "seconds")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    AFTER_RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    answer: str
    draft: str
    after_relevance: str
    sources: _containers.RepeatedCompositeFieldContainer[AnswerSource]
    searches: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    def __init__(self, answer: _Optional[str] = ..., draft: _Optional[str] = ..., after_relevance: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[AnswerSource, _Mapping]]] = ..., searches: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class AnswerSource(_message.Message):
    __slots__ = ("link", "point", "title")
    LINK_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    link: int
    point: str
    title: str
    def __init__(self, link: _Optional[int] = ..., point: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...
