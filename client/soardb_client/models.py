"""Language models of a server as steps: listed, paired, measured, sent, and asked to write.

    client.py, aio.py -> [models.py] -> calls.py, files.py

Models belong to the server and to no collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from soardb.arrays import as_int
from soardb.errors import InvalidArgument, Unavailable
from soardb.models.info import ModelInfo, ModelPair
from soardb.options import as_number, as_share
from soardb_client import convert
from soardb_client.calls import Call, Steps, as_text
from soardb_client.collections import Known
from soardb_client.files import ModelFiles
from soardb_client.operations import OperationState, Progress, state_of
from soardb_proto import columns
from soardb_proto.v1 import models_pb2, operations_pb2

__all__ = [
    "ModelInfo",
    "ModelPair",
    "Written",
    "delete_model",
    "evaluate",
    "generate",
    "get_model",
    "list_models",
    "model_of",
    "pair",
    "piece_of",
    "sampling_of",
    "unended",
    "uploads",
]

_STARTING_S = 30.0  # of a server's first call about models, which loads PyTorch
_MOST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Written:
    """What a text took.

    passes    of the model
    tau       tokens a pass
    passages  that were retrieved
    """

    tokens: int
    passes: int
    seconds: float
    tau: float
    passages: int

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


# ---- what there is, and changes ----


def list_models(known: Known) -> Steps[tuple[list[ModelInfo], list[ModelPair]]]:
    """Models, and pairs of them."""
    reply: models_pb2.ListModelsReply = yield from _asked(
        known, "List", models_pb2.ListModelsRequest(), models_pb2.ListModelsReply
    )
    return [model_of(one) for one in reply.models], [_pair_of(one) for one in reply.pairs]


def get_model(known: Known, name: str) -> Steps[ModelInfo]:
    """What is told of one."""
    request = models_pb2.GetModelRequest(model=as_text(name, "the name of a model"))
    return model_of((yield from _asked(known, "Get", request, models_pb2.Model)))


def delete_model(known: Known, name: str) -> Steps[None]:
    """Delete one with its pairs."""
    request = models_pb2.DeleteModelRequest(model=as_text(name, "the name of a model"))
    yield from _asked(known, "Delete", request, models_pb2.DeleteModelReply, is_change=True)


def pair(known: Known, target: str, draft: str, metrics: Mapping[str, float]) -> Steps[ModelPair]:
    """Keep what was measured."""
    request = models_pb2.PairModelsRequest(
        target=as_text(target, "target"),
        draft=as_text(draft, "draft"),
        metrics={as_text(k, "a metric"): as_number(v, f"metric {k}") for k, v in metrics.items()},
    )
    reply = yield from _asked(known, "Pair", request, models_pb2.ModelPair, is_change=True)
    return _pair_of(reply)


def evaluate(
    known: Known,
    target: str,
    draft: str,
    texts: Iterable[str] | None,
    collection: str | None,
    text_field: str,
    limit: int,
    gamma: int,
    length: int,
    prompt_tokens: int,
    sampling: models_pb2.Sampling,
) -> Steps[OperationState]:
    """Start to measure a draft with a target."""
    if (texts is None) == (collection is None):
        raise InvalidArgument("expected either texts or collection")
    request = models_pb2.EvaluateModelsRequest(
        target=as_text(target, "target"),
        draft=as_text(draft, "draft"),
        gamma=as_int(gamma, "gamma", 1, 1000),
        length=as_int(length, "length", 1, 1_000_000),
        prompt_tokens=as_int(prompt_tokens, "prompt_tokens", 1, 1_000_000),
        sampling=sampling,
    )
    if collection is not None:
        request.points.collection = as_text(collection, "collection")
        request.points.field = as_text(text_field, "text_field")
        request.points.limit = as_int(limit, "limit", 1, _MOST)
    elif isinstance(texts, str):
        raise InvalidArgument("expected texts as a list of strings, got one string")
    else:
        request.texts.texts.extend(as_text(text, "a text") for text in texts or ())
    reply = yield from _asked(known, "Evaluate", request, operations_pb2.Operation, is_change=True)
    return state_of(reply)


def _asked(
    known: Known, method: str, request: Any, reply: Any, *, is_change: bool = False
) -> Steps[Any]:
    known.check_open()
    return (
        yield Call(
            f"/soardb.v1.Models/{method}",
            request,
            reply,
            "write" if is_change else "read",
            is_repeatable=not is_change,
            least_s=_STARTING_S,
        )
    )


# ---- writing ----


def sampling_of(
    temperature: float, top_k: int | None, top_p: float, seed: int
) -> models_pb2.Sampling:
    """How tokens are drawn. Errors: InvalidArgument."""
    if as_number(temperature, "temperature") < 0:
        raise InvalidArgument(f"expected a temperature of at least 0, got {temperature}")
    return models_pb2.Sampling(
        temperature=temperature,
        top_k=None if top_k is None else as_int(top_k, "top_k", 1, 2**31),
        top_p=as_share(top_p, "top_p"),
        seed=as_int(seed, "seed", 0, 2**63 - 1),
    )


def generate(
    name: str,
    prompt: str,
    draft: str | None,
    collection: str | None,
    text_field: str,
    passages: int,
    vector: npt.ArrayLike | None,
    draft_passages: bool,
    gamma: int,
    longest: int,
    sampling: models_pb2.Sampling,
) -> Call:
    """The call that streams what a model writes. Errors: InvalidArgument."""
    if collection is None and (draft_passages or vector is not None):
        raise InvalidArgument("expected collection beside draft_passages or vector, got none")
    if draft_passages and draft is not None:
        raise InvalidArgument("expected one of draft and draft_passages, got both")
    request = models_pb2.GenerateRequest(
        model=as_text(name, "the name of a model"),
        prompt=as_text(prompt, "prompt"),
        gamma=as_int(gamma, "gamma", 1, 1000),
        longest=as_int(longest, "longest", 1, 1_000_000),
        sampling=sampling,
    )
    if draft is not None:
        request.draft_model = as_text(draft, "draft")
    elif draft_passages:
        request.draft_passages = True
    if collection is not None:
        request.retrieval.collection = as_text(collection, "collection")
        request.retrieval.field = as_text(text_field, "text_field")
        request.retrieval.passages = as_int(passages, "passages", 1, _MOST)
        if vector is not None:
            request.retrieval.vector.CopyFrom(columns.pack_matrix(_row(vector)))
    return Call("/soardb.v1.Models/Generate", request, models_pb2.GenerateReply, "long", False)


def _row(vector: npt.ArrayLike) -> np.ndarray[Any, Any]:
    try:
        row = np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"expected vector as (d,) real numbers, got {error}") from None
    if row.ndim != 1 or not row.size:
        raise InvalidArgument(f"expected vector as (d,) real numbers, got shape {row.shape}")
    return row[None]


def piece_of(message: models_pb2.GenerateReply) -> str | Written:
    """A piece of text, or the end of them."""
    if message.WhichOneof("part") == "piece":
        return message.piece
    told = message.written
    return Written(told.tokens, told.passes, told.seconds, told.tau, told.passages)


def unended() -> Unavailable:
    """What is raised where the pieces stop without an end."""
    return Unavailable("expected a text up to its end, the stream ended before")


# ---- sending ----


def uploads(
    name: str, sent: ModelFiles, progress: Progress
) -> tuple[str, Iterator[models_pb2.UploadModelRequest], type[models_pb2.Model]]:
    """Path, messages and the reply of the call that sends a model."""
    name = as_text(name, "the name of a model")

    def messages() -> Iterator[models_pb2.UploadModelRequest]:
        manifest = models_pb2.ModelManifest(name=name, entry=sent.entry)
        yield models_pb2.UploadModelRequest(manifest=manifest)
        done = 0
        for file in sent.files:
            yield models_pb2.UploadModelRequest(file=file.name)
            for chunk in sent.chunks(file):
                yield models_pb2.UploadModelRequest(data=chunk)
                done += len(chunk)
                progress("upload", done / max(sent.size, 1))

    return "/soardb.v1.Models/Upload", messages(), models_pb2.Model


# ---- replies ----


def model_of(message: models_pb2.Model) -> ModelInfo:
    """What a message says of a model."""
    return ModelInfo(
        message.name,
        message.architecture,
        convert.result_of(message.config),
        message.parameters,
        dict(message.metrics),
        convert.result_of(message.lineage),
        {one.name: {"bytes": one.size, "sha256": one.sha256} for one in message.files},
        message.created.ToMilliseconds() / 1e3,
    )


def _pair_of(message: models_pb2.ModelPair) -> ModelPair:
    return ModelPair(message.target, message.draft, dict(message.metrics))
