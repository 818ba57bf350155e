"""The proto service Models: language models as data, and what they write.

    rpc.py -> [models.py] -> shelf.py, soardb/models/registry.py, pipelines

Nothing is run that a client sent and no path is opened that it named: files of an upload go by the
plain names of its manifest into a folder of its own, and count once they are those of the manifest
and make a model of a known architecture. PyTorch is imported by the first call of this service, in
the writing process, and a server without it says so.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from soardb import deadline
from soardb.database import Database
from soardb.errors import CorruptStorage, InvalidArgument, NotAllowed, NotFound, Unavailable
from soardb.pipelines.stored import retrieved, texts_of
from soardb.storage.sqlite import translated
from soardb_proto.v1 import access_pb2, operations_pb2
from soardb_proto.v1 import models_pb2 as pb
from soardb_service.convert import json_of, vectors_of
from soardb_service.limits import Limits
from soardb_service.operations import Operations, Progress
from soardb_service.rpc import Call, opened
from soardb_service.shelf import Shelf

if TYPE_CHECKING:
    from soardb.models.info import ModelInfo, ModelPair
    from soardb.models.registry import Registry
    from soardb.models.sampling import Sampling

__all__ = ["Models"]

_OF_NONE = ""  # the collection that operations of this service are of
_FIELD, _PASSAGES, _TEXTS = "text", 3, 32
_GAMMA, _LONGEST, _LENGTH, _PROMPT = 5, 64, 32, 16

_log = structlog.get_logger("soardb_service")


class Models:
    """One method an rpc, named as in the .proto file.

    directory  whose folder "models" is the registry
    max_bytes  of the files of a model that is uploaded
    loaded     models in memory at once
    """

    def __init__(
        self,
        database: Database,
        operations: Operations,
        limits: Limits,
        directory: Path,
        *,
        max_bytes: int,
        loaded: int,
    ) -> None:
        self._database = database
        self._operations = operations
        self._limits = limits
        self._directory = directory
        self._max_bytes = max_bytes
        self._most_loaded = loaded
        self._opening = threading.Lock()
        self._changing = threading.Lock()  # of the registry, which one writes at a time
        self._opened: tuple[Registry, Shelf] | None = None

    # ---- what there is ----

    def List(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsReply:  # noqa: N802
        """Models and pairs; one whose manifest is damaged is left out and logged."""
        registry = self.registry()
        models = []
        for name in registry.names():
            try:
                models.append(_model(registry.get(name)))
            except (CorruptStorage, NotFound) as error:
                _log.warning("unreadable model", model=name, why=str(error))
        return pb.ListModelsReply(models=models, pairs=map(_pair, registry.pairs()))

    def Get(self, request: pb.GetModelRequest, call: Call) -> pb.Model:  # noqa: N802
        """What is told of one."""
        return _model(self.registry().get(request.model))

    # ---- changes ----

    def Upload(self, requests: Iterator[pb.UploadModelRequest], call: Call) -> pb.Model:  # noqa: N802
        """Take in a model, file by file."""
        _expect_all(call)
        first = next(iter(requests), None)
        if first is None or first.WhichOneof("part") != "manifest":
            raise InvalidArgument("expected a first message with the manifest of a model")
        name, manifest = first.manifest.name, json_of(first.manifest.entry, "entry")
        call.notes["model"] = name[:80]
        registry = self.registry()
        entry = registry.expected(name, manifest)
        with translated(registry.folder), registry.arriving() as folder:
            _receive(requests, entry.files, folder)
            with self._changing:
                return _model(registry.add_files(name, manifest, folder))

    def Delete(self, request: pb.DeleteModelRequest, call: Call) -> pb.DeleteModelReply:  # noqa: N802
        """Delete one with its pairs; text that it is writing goes on to its end."""
        _expect_all(call)
        registry = self.registry()
        with self._changing, translated(registry.folder):
            registry.remove(request.model)
        self.shelf().forget(request.model)
        return pb.DeleteModelReply()

    def Pair(self, request: pb.PairModelsRequest, call: Call) -> pb.ModelPair:  # noqa: N802
        """Keep what was measured of a draft."""
        _expect_all(call)
        return self._paired(request.target, request.draft, dict(request.metrics))

    def Evaluate(  # noqa: N802
        self, request: pb.EvaluateModelsRequest, call: Call
    ) -> operations_pb2.Operation:
        """Measure a draft with a target."""
        _expect_all(call)
        registry, shelf = self.registry(), self.shelf()
        for name in (request.target, request.draft):
            registry.get(name)
        texts = self._texts(request, call)
        sampling, seed = _sampling(request.sampling)

        def work(progress: Progress, stop: threading.Event) -> dict[str, Any]:
            from soardb.pipelines.distillspec.pairs import evaluated

            def waiting() -> None:
                progress("waiting", 0.0)

            with shelf.lent(request.target, request.draft, check=waiting) as (target, draft):
                metrics = evaluated(
                    target,
                    draft,
                    texts,
                    gamma=request.gamma or _GAMMA,
                    length=request.length or _LENGTH,
                    prompt_tokens=request.prompt_tokens or _PROMPT,
                    sampling=sampling,
                    seed=seed,
                    progress=progress,
                )
            self._paired(request.target, request.draft, metrics)
            return metrics

        return self._operations.start(_OF_NONE, "evaluate", work)

    def _paired(self, target: str, draft: str, metrics: Mapping[str, float]) -> pb.ModelPair:
        registry = self.registry()
        if strange := [name for name, value in metrics.items() if value - value != 0]:
            raise InvalidArgument(f"expected metrics as finite numbers, see {strange[0][:80]!r}")
        with self._changing, translated(registry.folder):
            return _pair(registry.pair(target, draft, metrics))

    # ---- writing ----

    def Generate(self, request: pb.GenerateRequest, call: Call) -> Iterator[pb.GenerateReply]:  # noqa: N802
        """Pieces of text, then what they took."""
        has_passages = request.HasField("retrieval")
        if request.draft_passages and not has_passages:
            raise InvalidArgument("expected retrieval beside draft_passages, got none")
        passages = self._passages(request, call) if has_passages else []
        shelf = self.shelf()
        from soardb.pipelines.speculate import SpeculateConfig, writing

        sampling, seed = _sampling(request.sampling)
        config = SpeculateConfig(
            request.gamma or _GAMMA, request.longest or _LONGEST, sampling, seed=seed
        )
        call.notes["model"] = request.model[:80]
        by_model = request.WhichOneof("draft") == "draft_model"
        names = [request.model, *([request.draft_model] if by_model else [])]
        with shelf.lent(*names) as found:
            draft = found[1] if by_model else passages if request.draft_passages else None
            written = writing(found[0], request.prompt, config, context=passages, draft=draft)
            for piece in written:
                yield pb.GenerateReply(piece=piece)
        call.notes["tokens"] = written.tokens
        yield pb.GenerateReply(
            written=pb.Written(
                tokens=written.tokens,
                passes=written.passes,
                seconds=written.seconds,
                tau=written.tokens / max(1, written.passes),
                passages=len(passages),
            )
        )

    def _passages(self, request: pb.GenerateRequest, call: Call) -> list[str]:
        """Texts of a collection that the caller may read."""
        asked = request.retrieval
        count = self._limits.check("limit", asked.passages or _PASSAGES, "passages")
        _expect_readable(self._database, call, asked.collection)
        collection = opened(self._database, call, asked.collection)
        vector = None
        if asked.HasField("vector"):
            rows = vectors_of(asked.vector, self._limits, "queries", "vector")
            if len(rows) != 1:
                raise InvalidArgument(f"expected one row in vector, got {len(rows)}")
            vector = rows[0]
        return retrieved(
            collection, asked.field or _FIELD, count, text=request.prompt, vector=vector
        )

    def _texts(self, request: pb.EvaluateModelsRequest, call: Call) -> list[str]:
        """What an evaluation begins with."""
        if request.WhichOneof("source") != "points":
            texts = list(request.texts.texts)
            self._limits.check("queries", len(texts), "texts")
        else:
            asked = request.points
            size = self._limits.check("page_size", asked.limit or _TEXTS, "limit")
            collection = opened(self._database, call, asked.collection)
            points = collection.scroll(page_size=size, with_payload=True).points
            texts = texts_of((point.payload for point in points), asked.field or _FIELD)
        if not any(texts):
            raise InvalidArgument("expected texts, or a collection with some, got none")
        return texts

    # ---- the registry ----

    def registry(self) -> Registry:
        """What there is. Errors: Unavailable without PyTorch."""
        return self._open()[0]

    def shelf(self) -> Shelf:
        """What of it is in memory. Errors: Unavailable without PyTorch."""
        return self._open()[1]

    def _open(self) -> tuple[Registry, Shelf]:
        """The registry and what of it is in memory. Errors: Unavailable without PyTorch."""
        with self._opening:
            if self._opened is None:
                try:
                    from soardb.models.registry import Registry
                except ModuleNotFoundError as error:
                    raise Unavailable(
                        f"{error.name} is not installed where the server runs, which models take; "
                        "there: pip install 'soardb[models]'"
                    ) from error
                registry = Registry(self._directory, self._max_bytes)
                registry.clear_arrivals()
                self._opened = registry, Shelf(registry, self._most_loaded)
            return self._opened


def _receive(
    requests: Iterator[pb.UploadModelRequest], files: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Write the files of an upload, each of the announced size. Errors: InvalidArgument."""
    waiting = {name: int(one["bytes"]) for name, one in files.items()}
    request = next(requests, None)
    while request is not None:
        name = request.file
        if request.WhichOneof("part") != "file" or name not in waiting:
            raise InvalidArgument(
                f"expected a file among {', '.join(waiting) or 'none any more'}, got "
                f"{name[:80] or 'something else'!r}"
            )
        left = waiting.pop(name)
        with (folder / name).open("xb") as sink:
            while (request := next(requests, None)) and request.WhichOneof("part") == "data":
                deadline.check()
                left -= len(request.data)
                if left < 0:
                    raise InvalidArgument(f"expected {-left:,} bytes less of {name}")
                sink.write(request.data)
        if left:
            raise InvalidArgument(f"expected {left:,} bytes more of {name}")
    if waiting:
        raise InvalidArgument(f"expected {', '.join(waiting)} too, the upload ended before")


def _expect_all(call: Call) -> None:
    """Refuse a key that is for some collections only, as models are everybody's."""
    if not call.caller.may_all(call.rule.scope):
        scope = access_pb2.Scope.Name(call.rule.scope).lower()
        raise NotAllowed(f"expected a key with the scope {scope} for '*', got one without")


def _expect_readable(database: Database, call: Call, name: str) -> None:
    """Refuse a collection of others, whether it is there or not."""
    if not call.caller.may(database.real_name(name), access_pb2.READ):
        raise NotAllowed(f"expected a key with the scope read for {name!r}, got one without")


def _sampling(message: pb.Sampling) -> tuple[Sampling, int]:
    """How tokens are drawn, and the seed. Errors: InvalidArgument."""
    from soardb.models.sampling import Sampling

    made = Sampling(
        message.temperature if message.HasField("temperature") else 1.0,
        message.top_k if message.HasField("top_k") else None,
        message.top_p if message.HasField("top_p") else 1.0,
    )
    made.check()
    return made, message.seed


def _model(entry: ModelInfo) -> pb.Model:
    out = pb.Model(
        name=entry.name,
        architecture=entry.architecture,
        parameters=entry.parameters,
        size=entry.size,
        metrics=entry.metrics,
        config=json.dumps(entry.config).encode(),
        lineage=json.dumps(entry.lineage).encode(),
        files=[
            pb.ModelFile(name=name, size=int(one["bytes"]), sha256=one["sha256"])
            for name, one in entry.files.items()
        ],
    )
    out.created.FromMilliseconds(int(entry.created * 1e3))
    return out


def _pair(pair: ModelPair) -> pb.ModelPair:
    return pb.ModelPair(target=pair.target, draft=pair.draft, metrics=pair.metrics)
