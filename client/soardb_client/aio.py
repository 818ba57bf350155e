"""The asyncio client: the methods of client.py, awaited.

    a program -> [aio.py] -> collections.py, points.py, operations.py, ingest.py (what to send)
                          -> aio_wire.py (how)

The same steps are run on grpc.aio, so what is sent, tried again and raised is the same. What the
arguments mean is said in client.py. A client belongs to the event loop of its first call. Checking
and packing arguments, and files of snapshots, keep the loop busy for as long as they take.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Unpack

import numpy.typing as npt

from soardb.curve import QUERIES, Curve
from soardb.errors import SoarError
from soardb.hits import HitColumns, Point
from soardb.kernels.layout import Metric
from soardb.options import Ack, Filter, Fusion, Mode, SearchOptions
from soardb.pages import Page
from soardb.points import Changes, Payloads
from soardb.schema import PointId
from soardb_client import agent, collections, convert, files, ingest, models, operations, points
from soardb_client.agent import AgentAnswer, AgentStep
from soardb_client.aio_wire import AsyncWire
from soardb_client.calls import Held
from soardb_client.collections import ServerInfo
from soardb_client.models import ModelInfo, ModelPair, Written
from soardb_client.operations import OperationState, Progress, SnapshotInfo, State, quiet
from soardb_client.points import PointBatch
from soardb_client.target import settings_of

__all__ = [
    "AsyncAsking",
    "AsyncClient",
    "AsyncCollection",
    "AsyncGeneration",
    "AsyncModels",
    "AsyncOperation",
]

_ModelInfos = list[ModelInfo]  # as AsyncModels has a method that is named list
_ModelPairs = list[ModelPair]


class AsyncOperation:
    """Long work on the server: started by start_compact() and the like."""

    def __init__(self, wire: AsyncWire, state: OperationState) -> None:
        self._wire = wire
        self.last = state

    @property
    def name(self) -> str:
        """Its name on the server."""
        return self.last.name

    @property
    def state(self) -> State:
        """ "running", "succeeded", "failed" or "cancelled", when last heard of; see refresh()."""
        return self.last.state

    @property
    def result(self) -> dict[str, Any]:
        """Of a successful one: JSON values."""
        return self.last.result

    async def refresh(self, *, timeout: float | None = None) -> AsyncOperation:
        """Ask how it is; `last` says."""
        self.last = await self._wire.run(operations.read_again(self.last), timeout)
        return self

    async def wait(
        self, *, progress: Progress = quiet, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until it has ended well; its result.

        See Operation.wait.
        """
        target = self._wire.settings.target
        self.last = await self._wire.run(operations.waited(self.last, target, progress), timeout)
        return self.last.result

    async def cancel(self, *, timeout: float | None = None) -> None:
        """Ask it to stop; wait() raises Closed once it has."""
        self.last = await self._wire.run(operations.cancel(self.last), timeout)

    def __repr__(self) -> str:
        last = self.last
        return f"AsyncOperation({last.kind} of {last.collection!r}, {last.state}, {last.stage!r})"


class AsyncCollection:
    """Made by AsyncClient.create_collection and get_collection; safe for many tasks of one loop.

    See Collection. What a property of it asks the server for is awaited: `await collection.seq`;
    in the place of len() stands `await collection.count()`.
    """

    def __init__(self, wire: AsyncWire, held: Held) -> None:
        self._wire = wire
        self._held = held

    # ------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The name in the database."""
        return self._held.name

    @property
    def id(self) -> str:
        """Of this collection and no other, whatever it was or will be called."""
        return self._held.id

    @property
    def d(self) -> int:
        """Dimension of the vectors."""
        return self._held.d

    @property
    def metric(self) -> Metric:
        """What "closer" means."""
        return self._held.metric

    @property
    def schema(self) -> dict[str, str]:
        """The declared payload fields."""
        return self._held.schema.to_json()

    @property
    def ttl(self) -> str | None:
        """The declared datetime field after which a point is gone, or None."""
        return self._held.ttl

    @property
    async def id_kind(self) -> str | None:
        """ "int" or "str", as the first write had it; None before that. Asks the server."""
        message = await self._wire.run(points.described(self._held))
        return message.id_kind if message.HasField("id_kind") else None

    @property
    async def seq(self) -> int:
        """The number of the last write that a read now would see. Asks the server."""
        return (await self._wire.run(points.described(self._held))).seq

    def __repr__(self) -> str:
        return f"AsyncCollection({self.name!r}, dim={self.d}, metric={self.metric!r})"

    # ------------------------------------------------------------------ writing

    async def upsert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Store points, in the place of those that have their ids. Whole or not at all.

        See Collection.upsert.
        """
        steps = points.put(self._held, ids, vectors, payloads, "upsert", ack, request_id)
        return await self._wire.run(steps, timeout)

    async def insert(
        self,
        ids: Any,
        vectors: npt.ArrayLike | None = None,
        payloads: Payloads = None,
        *,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Like upsert, but refuses the whole call where an id is there (AlreadyExists)."""
        steps = points.put(self._held, ids, vectors, payloads, "insert", ack, request_id)
        return await self._wire.run(steps, timeout)

    async def update_payload(
        self,
        payload: Changes,
        *,
        ids: Any = None,
        filter: Filter = None,
        replace: bool = False,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Change payloads of ids, which must be there, or of all that match a filter.

        See Collection.update_payload.
        """
        steps = points.update_payload(self._held, payload, ids, filter, replace, ack, request_id)
        return await self._wire.run(steps, timeout)

    async def delete(
        self,
        ids: Any = None,
        *,
        filter: Filter = None,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete points by id, unknown ones being ignored, or all that match a filter.

        See Collection.delete.
        """
        return await self._wire.run(
            points.delete(self._held, ids, filter, ack, request_id), timeout
        )

    async def flush(self, *, timeout: float | None = None) -> None:
        """Wait until writes acknowledged from memory are on the server's disk."""
        await self._wire.run(points.flush(self._held), timeout)

    async def ingest(
        self,
        batches: Iterable[Any] | AsyncIterable[Any],
        mode: Mode = "upsert",
        ack: Ack = "fsync",
        *,
        window: int | None = None,
        resume: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Write many batches over one stream, several of them under way at once.

        See Collection.ingest.
        """
        return await self._wire.ingest(
            ingest.Stream(self._held, mode, ack, window, progress), batches, resume
        )

    # ------------------------------------------------------------------ reading by id and in order

    async def get(
        self, ids: Any, *, with_vectors: bool = False, timeout: float | None = None
    ) -> list[Point | None]:
        """The points of ids, in order; None where there is none."""
        return await self._wire.run(points.get(self._held, ids, with_vectors), timeout)

    async def scroll(
        self,
        *,
        filter: Filter = None,
        page_size: int = 100,
        page_token: str | None = None,
        with_payload: bool = True,
        with_vectors: bool = False,
        timeout: float | None = None,
    ) -> Page:
        """Points in a fixed order of their ids, a page at a time.

        See Collection.scroll.
        """
        steps = points.scroll(self._held, filter, page_size, page_token, with_payload, with_vectors)
        return await self._wire.run(steps, timeout)

    async def batches(
        self, size: int = 4096, *, timeout: float | None = None
    ) -> AsyncIterator[PointBatch]:
        """Every point as of one moment, in the order of writing, at most `size` at a time.

        See Collection.batches.
        """
        call = points.export(self._held, size)
        async for part in self._wire.parts(call, timeout):
            yield PointBatch(*convert.exported(part, self._held.d))

    async def count(self, filter: Filter = None, *, timeout: float | None = None) -> int:
        """How many points there are, or match; exact."""
        return await self._wire.run(points.count(self._held, filter), timeout)

    # ------------------------------------------------------------------ searching

    async def search(
        self,
        query: npt.ArrayLike | None = None,
        limit: int = 10,
        *,
        k: int | None = None,
        id: PointId | None = None,
        text: str | None = None,
        text_fields: Sequence[str] | None = None,
        fusion: Fusion = "rrf",
        weights: tuple[float, float] = (1.0, 1.0),
        filter: Filter = None,
        nprobe: int | None = None,
        rerank: int | None = None,
        target_recall: float | None = None,
        exact: bool = False,
        threads: int = 1,
        score_threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 3,
        with_payload: bool = True,
        with_vectors: bool = False,
        explain: bool = False,
        merge_recall: float | None = None,
        measure_merge: bool = False,
        allow_partial: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """The closest points to a query: Hits, or a list of Hits for (nq, d) queries.

        See Collection.search.
        """
        options: SearchOptions = {
            "k": k,
            "id": id,
            "text": text,
            "text_fields": text_fields,
            "fusion": fusion,
            "weights": weights,
            "filter": filter,
            "nprobe": nprobe,
            "rerank": rerank,
            "target_recall": target_recall,
            "exact": exact,
            "threads": threads,
            "score_threshold": score_threshold,
            "group_by": group_by,
            "group_size": group_size,
            "with_payload": with_payload,
            "with_vectors": with_vectors,
            "explain": explain,
            "merge_recall": merge_recall,
            "measure_merge": measure_merge,
            "allow_partial": allow_partial,
        }
        return await self._wire.run(points.search(self._held, query, limit, options), timeout)

    async def search_columns(
        self,
        query: npt.ArrayLike | None = None,
        limit: int = 10,
        **options: Unpack[SearchOptions],
    ) -> HitColumns:
        """What search() finds, as flat columns, and payloads as the JSON that is stored.

        See Collection.search_columns.
        """
        steps = points.search_columns(self._held, query, limit, options)
        return await self._wire.run(steps, options.get("timeout"))

    # ------------------------------------------------------------------ care

    async def compact(
        self,
        *,
        retrain: bool = False,
        progress: Progress = quiet,
        timeout: float | None = None,
    ) -> None:
        """Build the next generation of the index now, and wait for it; reads and writes go on.

        See Collection.compact.
        """
        limit = self._wire.limit(timeout)
        operation = await self.start_compact(retrain=retrain, timeout=timeout)
        await operation.wait(progress=progress, timeout=limit.left_s())

    async def start_compact(
        self, *, retrain: bool = False, timeout: float | None = None
    ) -> AsyncOperation:
        """Like compact(), without waiting."""
        steps = operations.start_compact(self._held, retrain)
        return AsyncOperation(self._wire, await self._wire.run(steps, timeout))

    async def tune(
        self,
        k: int = 10,
        *,
        queries: int = QUERIES,
        nprobes: Sequence[int] | None = None,
        reranks: Sequence[int] | None = None,
        seed: int = 0,
        progress: Progress = quiet,
        timeout: float | None = None,
    ) -> Curve:
        """Measure what recall@k costs here: recall and median latency for settings of a search.

        See Collection.tune.
        """
        limit = self._wire.limit(timeout)
        operation = await self.start_tune(
            k, queries=queries, nprobes=nprobes, reranks=reranks, seed=seed, timeout=timeout
        )
        return convert.curve_of(await operation.wait(progress=progress, timeout=limit.left_s()))

    async def start_tune(
        self,
        k: int = 10,
        *,
        queries: int = QUERIES,
        nprobes: Sequence[int] | None = None,
        reranks: Sequence[int] | None = None,
        seed: int = 0,
        timeout: float | None = None,
    ) -> AsyncOperation:
        """Like tune(), without waiting; Curve.of_json() reads the result."""
        steps = operations.start_tune(self._held, k, queries, nprobes, reranks, seed)
        return AsyncOperation(self._wire, await self._wire.run(steps, timeout))

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Counts and bytes by part: JSON values."""
        return await self._wire.run(points.stats(self._held), timeout)

    async def close(self, how: str = "closed") -> None:
        """Refuse further calls through this client. Nothing happens on the server."""
        self._held.closed = self._held.closed or how


class AsyncGeneration:
    """Text as it is written: an asynchronous iterator of pieces. aclose() ends it.

    written  what it took, once the last piece has come
    """

    def __init__(self, parts: AsyncIterator[Any]) -> None:
        self._parts = parts
        self.written: Written | None = None

    def __aiter__(self) -> AsyncGeneration:
        return self

    async def __anext__(self) -> str:
        if self.written is not None:
            raise StopAsyncIteration
        message = await anext(self._parts, None)
        if message is None:
            raise models.unended()
        piece = models.piece_of(message)
        if isinstance(piece, str):
            return piece
        self.written = piece
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Let go of it, finished or not."""
        await self._parts.aclose()  # type: ignore[attr-defined]

    async def __aenter__(self) -> AsyncGeneration:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncAsking:
    """Steps to an answer as they are done: an asynchronous iterator. aclose() ends it.

    answer  once the last step has come
    """

    def __init__(self, parts: AsyncIterator[Any]) -> None:
        self._parts = parts
        self.answer: AgentAnswer | None = None

    def __aiter__(self) -> AsyncAsking:
        return self

    async def __anext__(self) -> AgentStep:
        if self.answer is not None:
            raise StopAsyncIteration
        message = await anext(self._parts, None)
        if message is None:
            raise agent.unended()
        told = agent.told_of(message)
        if isinstance(told, AgentStep):
            return told
        self.answer = told
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Let go of it, finished or not."""
        await self._parts.aclose()  # type: ignore[attr-defined]

    async def __aenter__(self) -> AsyncAsking:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncModels:
    """Language models of a server: AsyncClient.models. The methods of Models, awaited."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def list(self, *, timeout: float | None = None) -> _ModelInfos:
        """All of them, by name."""
        return (await self._wire.run(models.list_models(self._wire.known), timeout))[0]

    async def pairs(
        self, target: str | None = None, *, timeout: float | None = None
    ) -> _ModelPairs:
        """Drafts that were measured, of all targets or of one."""
        found = (await self._wire.run(models.list_models(self._wire.known), timeout))[1]
        return [pair for pair in found if target in (None, pair.target)]

    async def get(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """What is told of one. Errors: NotFound."""
        return await self._wire.run(models.get_model(self._wire.known, name), timeout)

    async def upload(
        self, name: str, folder: str | os.PathLike[str], progress: Progress = quiet
    ) -> ModelInfo:
        """Send a model of this machine's registry, such as DIR/models/NAME, and load it there.

        See Models.upload.
        """
        sent = files.model_files(Path(folder))
        return models.model_of(await self._wire.send(*models.uploads(name, sent, progress)))

    async def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Delete one with its pairs. Errors: NotFound, NotAllowed."""
        await self._wire.run(models.delete_model(self._wire.known, name), timeout)

    async def pair(
        self,
        target: str,
        draft: str,
        metrics: Mapping[str, float],
        *,
        timeout: float | None = None,
    ) -> ModelPair:
        """Keep what was measured of a draft with a target. Errors: NotFound, InvalidArgument."""
        return await self._wire.run(models.pair(self._wire.known, target, draft, metrics), timeout)

    async def evaluate(
        self,
        target: str,
        draft: str,
        texts: Iterable[str] | None = None,
        *,
        collection: str | None = None,
        text_field: str = "text",
        limit: int = 32,
        gamma: int = 5,
        length: int = 32,
        prompt_tokens: int = 16,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        timeout: float | None = None,
    ) -> AsyncOperation:
        """Start to measure a draft with a target; the result is the metrics of the pair.

        See Models.evaluate.
        """
        steps = models.evaluate(
            self._wire.known, target, draft, texts, collection, text_field, limit, gamma, length,
            prompt_tokens, models.sampling_of(temperature, top_k, top_p, seed),
        )  # fmt: skip
        return AsyncOperation(self._wire, await self._wire.run(steps, timeout))

    def generate(
        self,
        name: str,
        prompt: str,
        *,
        draft: str | None = None,
        collection: str | None = None,
        text_field: str = "text",
        passages: int = 3,
        vector: npt.ArrayLike | None = None,
        draft_passages: bool = False,
        gamma: int = 5,
        longest: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        timeout: float | None = None,
    ) -> AsyncGeneration:
        """Write on from a prompt: the pieces of text as they come. Not awaited, but iterated.

        See Models.generate.
        """
        call = models.generate(
            name, prompt, draft, collection, text_field, passages, vector, draft_passages, gamma,
            longest, models.sampling_of(temperature, top_k, top_p, seed),
        )  # fmt: skip
        return AsyncGeneration(self._wire.parts(call, timeout))

    def __repr__(self) -> str:
        return f"AsyncModels({self._wire.settings.target!r})"


class AsyncClient:
    """A database that a server serves, for one event loop. The arguments are those of Client.

    Making one calls nobody. An asynchronous context manager, safe for many tasks.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        write_timeout: float = 60.0,
        connections: int = 1,
        retries: int = 5,
        allow_plaintext_key: bool = False,
    ) -> None:
        self._wire = AsyncWire(
            settings_of(
                target,
                api_key=api_key,
                ca=ca,
                certificate=certificate,
                private_key=private_key,
                timeout=timeout,
                write_timeout=write_timeout,
                connections=connections,
                retries=retries,
                allow_plaintext_key=allow_plaintext_key,
            )
        )

    @property
    def target(self) -> str:
        """The server, as it was named."""
        return self._wire.settings.target

    @property
    def models(self) -> AsyncModels:
        """The language models that the server holds."""
        return AsyncModels(self._wire)

    # ------------------------------------------------------------------ collections

    async def create_collection(
        self,
        name: str,
        dim: int,
        metric: str = "cosine",
        *,
        schema: Mapping[str, str] | None = None,
        index: Mapping[str, Any] | None = None,
        ttl: str | None = None,
        exist_ok: bool = False,
        timeout: float | None = None,
    ) -> AsyncCollection:
        """Make a collection, durable when this returns.

        See Client.create_collection.
        """
        steps = collections.create(
            self._wire.known, name, dim, metric, schema, index, ttl, exist_ok
        )
        return AsyncCollection(self._wire, await self._wire.run(steps, timeout))

    async def get_collection(self, name: str, *, timeout: float | None = None) -> AsyncCollection:
        """The collection of a name or an alias. Errors: NotFound, CorruptStorage."""
        held = await self._wire.run(collections.get(self._wire.known, name), timeout)
        return AsyncCollection(self._wire, held)

    async def list_collections(self, *, timeout: float | None = None) -> list[str]:
        """Names, sorted; those that the key may read."""
        return await self._wire.run(collections.list_names(self._wire.known), timeout)

    async def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection with all its points, and the aliases that stand for it."""
        await self._wire.run(collections.drop(self._wire.known, name), timeout)

    async def rename_collection(
        self, name: str, new_name: str, *, timeout: float | None = None
    ) -> None:
        """Give a collection another name; handles of this client and aliases go on working."""
        await self._wire.run(collections.rename(self._wire.known, name, new_name), timeout)

    # ------------------------------------------------------------------ aliases

    async def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> None:
        """Let an alias stand for a collection, in the place of another if it did: at once."""
        await self.set_aliases({alias: collection}, timeout=timeout)

    async def set_aliases(
        self, aliases: Mapping[str, str | None], *, timeout: float | None = None
    ) -> None:
        """Change several aliases at once or not at all; None drops one."""
        await self._wire.run(collections.set_aliases(self._wire.known, aliases), timeout)

    async def list_aliases(self, *, timeout: float | None = None) -> dict[str, str]:
        """{alias: collection}."""
        return await self._wire.run(collections.list_aliases(self._wire.known), timeout)

    # ------------------------------------------------------------------ questions

    def ask(
        self,
        collection: str,
        question: str,
        *,
        model: str,
        text_field: str = "text",
        title_field: str | None = None,
        embedder: str | None = None,
        filter: Filter = None,
        passages: int = 3,
        passage_length: int = 500,
        searches: int = 10,
        samples: int = 4,
        temperature: float = 0.5,
        longest: int = 512,
        self_checks: bool = True,
        shots: bool | None = None,
        grammars: bool = False,
        seed: int = 0,
        timeout: float | None = None,
    ) -> AsyncAsking:
        """Steps to an answer, as they come. Not awaited, but iterated.

        See Client.ask.
        """
        call = agent.ask(
            collection, question, model, text_field, title_field, embedder, filter, passages,
            passage_length, searches, samples, temperature, longest, self_checks, shots, grammars,
            seed,
        )  # fmt: skip
        return AsyncAsking(self._wire.parts(call, timeout))

    # ------------------------------------------------------------------ snapshots

    async def snapshot(
        self,
        name: str,
        target: str | os.PathLike[str],
        progress: Progress = quiet,
        *,
        timeout: float | None = None,
    ) -> None:
        """Write a collection, as it is now, to one new file of this machine; writes go on.

        See Client.snapshot.
        """
        wire, limit = self._wire, self._wire.limit(timeout)
        with files.new_file(Path(target)) as sink:
            made = await self.start_snapshot(name, timeout=timeout)
            await made.wait(progress=progress, timeout=limit.left_s())
            size = int(made.result.get("size", 0))
            async for chunk in wire.parts(operations.download(made.last), limit.left_s()):
                sink.write(chunk.data)
                progress("download", sink.tell() / max(size, 1))
            await self._forget(made.last.collection, str(made.result.get("snapshot", "")))

    async def restore(
        self,
        archive: str | os.PathLike[str],
        name: str,
        progress: Progress = quiet,
        *,
        timeout: float | None = None,
    ) -> AsyncCollection:
        """A snapshot that is a file of this machine as a new collection.

        See Client.restore.
        """
        wire, limit = self._wire, self._wire.limit(timeout)
        await wire.run(collections.expect_free(wire.known, name), timeout)
        path, messages, reply = operations.uploads(files.chunks_of(Path(archive)), progress)
        uploaded = operations.snapshot_of(await wire.send(path, messages, reply))
        try:
            operation = await self.start_restore(
                name, uploaded.name, source=uploaded.collection, timeout=limit.left_s()
            )
            await operation.wait(progress=progress, timeout=limit.left_s())
        finally:
            await self._forget(uploaded.collection, uploaded.name)
        return await self.get_collection(name, timeout=limit.left_s())

    async def _forget(self, name: str, snapshot: str) -> None:
        """Delete the server's copy of a snapshot, where the key may do that and it can be done."""
        with contextlib.suppress(SoarError):
            await self.delete_snapshot(name, snapshot)

    async def start_snapshot(self, name: str, *, timeout: float | None = None) -> AsyncOperation:
        """Make a snapshot that stays on the server; its result is {"snapshot": name, "size": n}."""
        steps = operations.start_snapshot(self._wire.known, name)
        return AsyncOperation(self._wire, await self._wire.run(steps, timeout))

    async def start_restore(
        self,
        name: str,
        snapshot: str,
        *,
        source: str | None = None,
        timeout: float | None = None,
    ) -> AsyncOperation:
        """Make a collection of a snapshot of `source`, or of `name`, that lies on the server."""
        steps = operations.start_restore(self._wire.known, name, source or name, snapshot)
        return AsyncOperation(self._wire, await self._wire.run(steps, timeout))

    async def list_snapshots(
        self, name: str, *, timeout: float | None = None
    ) -> list[SnapshotInfo]:
        """The snapshots of a collection that lie on the server."""
        return await self._wire.run(operations.list_snapshots(self._wire.known, name), timeout)

    async def delete_snapshot(
        self, name: str, snapshot: str, *, timeout: float | None = None
    ) -> None:
        """Delete a snapshot that lies on the server."""
        await self._wire.run(operations.delete_snapshot(self._wire.known, name, snapshot), timeout)

    # ------------------------------------------------------------------ care

    async def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Version, caps on one call, and what this client's key may do."""
        return await self._wire.run(collections.server_info(self._wire.known), timeout)

    async def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Memory of the server's process, and counts and bytes of every collection: JSON values."""
        return await self._wire.run(collections.stats(self._wire.known), timeout)

    async def close(self) -> None:
        """End what is under way and let go of the connections."""
        await self._wire.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.target!r})"
