"""The blocking client: the methods of an embedded database, over gRPC.

    a program -> [client.py] -> collections.py, points.py, operations.py, ingest.py (what to send)
                             -> wire.py (how)

Each method runs the steps of one of the modules of the first row; aio.py runs the same ones. A
client is safe for many threads, and is made before a fork or after it, not across.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from soardb_client.calls import Held
from soardb_client.collections import ServerInfo
from soardb_client.models import ModelInfo, ModelPair, Written
from soardb_client.operations import OperationState, Progress, SnapshotInfo, State, quiet
from soardb_client.points import PointBatch
from soardb_client.target import settings_of
from soardb_client.wire import Wire

__all__ = ["Asking", "Client", "Collection", "Generation", "Models", "Operation"]

_ModelInfos = list[ModelInfo]  # as Models has a method that is named list
_ModelPairs = list[ModelPair]


class Operation:
    """Long work on the server: started by start_compact() and the like."""

    def __init__(self, wire: Wire, state: OperationState) -> None:
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

    def refresh(self, *, timeout: float | None = None) -> Operation:
        """Ask how it is; `last` says."""
        self.last = self._wire.run(operations.read_again(self.last), timeout)
        return self

    def wait(self, *, progress: Progress = quiet, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended well; its result.

        progress(stage, share) is called a few times a second. Errors: those of the work, Closed
        where it was cancelled, TimedOut, after which it goes on and may be waited for again.
        """
        target = self._wire.settings.target
        self.last = self._wire.run(operations.waited(self.last, target, progress), timeout)
        return self.last.result

    def cancel(self, *, timeout: float | None = None) -> None:
        """Ask it to stop; wait() raises Closed once it has."""
        self.last = self._wire.run(operations.cancel(self.last), timeout)

    def __repr__(self) -> str:
        last = self.last
        return f"Operation({last.kind} of {last.collection!r}, {last.state}, {last.stage!r})"


class Collection:
    """Made by Client.create_collection and Client.get_collection; safe for many threads.

    A read sees every write of this client that came before it. timeout: seconds for the whole call,
    attempts and pauses included; 10 for reads and 60 for writes unless told.
    """

    def __init__(self, wire: Wire, held: Held) -> None:
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
    def id_kind(self) -> str | None:
        """ "int" or "str", as the first write had it; None before that. Asks the server."""
        message = self._wire.run(points.described(self._held))
        return message.id_kind if message.HasField("id_kind") else None

    @property
    def seq(self) -> int:
        """The number of the last write that a read now would see. Asks the server."""
        return self._wire.run(points.described(self._held)).seq

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, dim={self.d}, metric={self.metric!r})"

    # ------------------------------------------------------------------ writing

    def upsert(
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

        ids         (n,) int64 or strings; or one table with the columns id, vector and payload
                    columns (Arrow, Polars, pandas), and nothing else
        vectors     (n, d) real numbers; stored as float32
        payloads    n dicts, or a dict of columns, or a table
        ack         "fsync": flushed to disk; "logged": survives the server's process; "memory":
                    queued there, and sent once only
        request_id  made for each call unless told; under it the write is done once, however often
                    it is sent within ten minutes

        A server takes 10,000 points and 64 MiB in one call; ingest() takes any number. Returns how
        many points were stored (0 for ack="memory", which does not wait). Errors: InvalidArgument,
        OutOfSpace, WriteFailed, ReadOnly, OutOfMemory, Closed, Unavailable, TimedOut, NotAllowed.
        """
        steps = points.put(self._held, ids, vectors, payloads, "upsert", ack, request_id)
        return self._wire.run(steps, timeout)

    def insert(
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
        return self._wire.run(steps, timeout)

    def update_payload(
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

        payload  a dict for all of them; or a list of n dicts, one for each of n ids

        Members of a dict replace those of the same name, None removes one; replace=True leaves
        nothing else. Returns how many points changed. Errors: NotFound for an unknown id.
        """
        steps = points.update_payload(self._held, payload, ids, filter, replace, ack, request_id)
        return self._wire.run(steps, timeout)

    def delete(
        self,
        ids: Any = None,
        *,
        filter: Filter = None,
        ack: Ack = "fsync",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete points by id, unknown ones being ignored, or all that match a filter.

        Returns how many were deleted (0 for ack="memory", which does not wait).
        """
        return self._wire.run(points.delete(self._held, ids, filter, ack, request_id), timeout)

    def flush(self, *, timeout: float | None = None) -> None:
        """Wait until writes acknowledged from memory are on the server's disk."""
        self._wire.run(points.flush(self._held), timeout)

    def ingest(
        self,
        batches: Iterable[Any],
        mode: Mode = "upsert",
        ack: Ack = "fsync",
        *,
        window: int | None = None,
        resume: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Write many batches over one stream, several of them under way at once.

        batches   (ids, vectors), (ids, vectors, payloads) or tables; a batch that is too large for
                  one message is written as several
        mode      "upsert", or "insert", which ends at the first batch with an id that is there
        window    unacknowledged batches, at most the server's own number
        resume    open a broken stream again, and send again what was not acknowledged; each batch
                  is applied once all the same (but for ack="memory", which is not remembered)
        progress  called with how many points are written so far

        Returns how many points were written. After an error the batches before it may be written.
        """
        return self._wire.ingest(
            ingest.Stream(self._held, mode, ack, window, progress), batches, resume
        )

    # ------------------------------------------------------------------ reading by id and in order

    def get(
        self, ids: Any, *, with_vectors: bool = False, timeout: float | None = None
    ) -> list[Point | None]:
        """The points of ids, in order; None where there is none."""
        return self._wire.run(points.get(self._held, ids, with_vectors), timeout)

    def scroll(
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

        page_token is that of the page before; it stays good while points are written: each point
        that is there all along comes exactly once.
        """
        steps = points.scroll(self._held, filter, page_size, page_token, with_payload, with_vectors)
        return self._wire.run(steps, timeout)

    def batches(self, size: int = 4096, *, timeout: float | None = None) -> Iterator[PointBatch]:
        """Every point as of one moment, in the order of writing, at most `size` at a time.

        One stream, which has no timeout unless told and is not tried again: after Unavailable the
        points that came are sound, and not all.
        """
        call = points.export(self._held, size)
        for part in self._wire.parts(call, timeout):
            yield PointBatch(*convert.exported(part, self._held.d))

    def count(self, filter: Filter = None, *, timeout: float | None = None) -> int:
        """How many points there are, or match; exact."""
        return self._wire.run(points.count(self._held, filter), timeout)

    # ------------------------------------------------------------------ searching

    def search(
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

        query            (d,) or (nq, d) real numbers, at most 1,000 of them
        id               in place of a query: the vector of this point, which is left out
        text             words; alone they rank by BM25, with a query the two rankings are fused,
                         by `fusion` "rrf" or "weighted" with `weights` of (vector, text)
        text_fields      declared text fields to look in; all of them unless told
        limit, k         results wanted, at most 10,000; fewer come only where fewer match
        filter           F(...) expression, JSON or SQL-like string
        target_recall    share of the true results to find, by what was measured there; 0.95 where
                         nothing is said. Where no setting reaches it, every point is scored
        nprobe, rerank   in its place: lists visited, candidates scored again
        exact            in its place: score every matching point
        threads          checked and left alone: the server decides
        score_threshold  leave out scores below
        group_by         field: `limit` groups of at most `group_size` hits each
        explain          say how it was done in `plan`
        merge_recall, measure_merge, allow_partial  for a collection over shards, whose
                         ShardedCollection.search says what they mean

        Scores are exact for the ids returned; equal scores come in a fixed order.
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
        gather = self._wire.gather
        if gather is not None and query is not None and gather.takes(query, options):
            return gather.search(self._wire, self._held, query, limit, options, timeout)
        return self._wire.run(points.search(self._held, query, limit, options), timeout)

    def search_columns(
        self,
        query: npt.ArrayLike | None = None,
        limit: int = 10,
        **options: Unpack[SearchOptions],
    ) -> HitColumns:
        """What search() finds, as flat columns, and payloads as the JSON that is stored.

        Takes the arguments of search(). For those who pass results on and need no object a hit.
        """
        steps = points.search_columns(self._held, query, limit, options)
        return self._wire.run(steps, options.get("timeout"))

    # ------------------------------------------------------------------ care

    def compact(
        self,
        *,
        retrain: bool = False,
        progress: Progress = quiet,
        timeout: float | None = None,
    ) -> None:
        """Build the next generation of the index now, and wait for it; reads and writes go on.

        The server does this by itself when it is due. retrain: learn partitions anew.
        """
        limit = self._wire.limit(timeout)
        operation = self.start_compact(retrain=retrain, timeout=timeout)
        operation.wait(progress=progress, timeout=limit.left_s())

    def start_compact(self, *, retrain: bool = False, timeout: float | None = None) -> Operation:
        """Like compact(), without waiting."""
        steps = operations.start_compact(self._held, retrain)
        return Operation(self._wire, self._wire.run(steps, timeout))

    def tune(
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

        queries           how many are drawn from the stored points, at most
        nprobes, reranks  measure these settings alone, for the eye; chosen unless given

        The server measures itself; the way to it comes on top. Without settings its searches choose
        by the curve from then on. Without partitions it is one exact point. Errors:
        InvalidArgument for k points or fewer.
        """
        limit = self._wire.limit(timeout)
        operation = self.start_tune(
            k, queries=queries, nprobes=nprobes, reranks=reranks, seed=seed, timeout=timeout
        )
        return convert.curve_of(operation.wait(progress=progress, timeout=limit.left_s()))

    def start_tune(
        self,
        k: int = 10,
        *,
        queries: int = QUERIES,
        nprobes: Sequence[int] | None = None,
        reranks: Sequence[int] | None = None,
        seed: int = 0,
        timeout: float | None = None,
    ) -> Operation:
        """Like tune(), without waiting; Curve.of_json() reads the result."""
        steps = operations.start_tune(self._held, k, queries, nprobes, reranks, seed)
        return Operation(self._wire, self._wire.run(steps, timeout))

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Counts and bytes by part: JSON values."""
        return self._wire.run(points.stats(self._held), timeout)

    def close(self, how: str = "closed") -> None:
        """Refuse further calls through this client. Nothing happens on the server."""
        self._held.closed = self._held.closed or how


class Generation:
    """Text as it is written: an iterator of pieces. close(), or leaving the block, ends it.

    written  what it took, once the last piece has come
    """

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self.written: Written | None = None

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> str:
        if self.written is not None:
            raise StopIteration
        message = next(self._parts, None)
        if message is None:
            raise models.unended()
        piece = models.piece_of(message)
        if isinstance(piece, str):
            return piece
        self.written = piece
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Let go of it, finished or not."""
        self._parts.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Asking:
    """Steps to an answer as they are done: an iterator. close(), or leaving the block, ends it.

    answer  once the last step has come
    """

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self.answer: AgentAnswer | None = None

    def __iter__(self) -> Asking:
        return self

    def __next__(self) -> AgentStep:
        if self.answer is not None:
            raise StopIteration
        message = next(self._parts, None)
        if message is None:
            raise agent.unended()
        told = agent.told_of(message)
        if isinstance(told, AgentStep):
            return told
        self.answer = told
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Let go of it, finished or not."""
        self._parts.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Models:
    """Language models of a server: Client.models."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, *, timeout: float | None = None) -> _ModelInfos:
        """All of them, by name."""
        return self._wire.run(models.list_models(self._wire.known), timeout)[0]

    def pairs(self, target: str | None = None, *, timeout: float | None = None) -> _ModelPairs:
        """Drafts that were measured, of all targets or of one."""
        found = self._wire.run(models.list_models(self._wire.known), timeout)[1]
        return [pair for pair in found if target in (None, pair.target)]

    def get(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """What is told of one. Errors: NotFound."""
        return self._wire.run(models.get_model(self._wire.known, name), timeout)

    def upload(
        self, name: str, folder: str | os.PathLike[str], progress: Progress = quiet
    ) -> ModelInfo:
        """Send a model of this machine's registry, such as DIR/models/NAME, and load it there.

        Errors: NotFound, InvalidArgument for files that are not those of the manifest, or too
        large, AlreadyExists, NotAllowed.
        """
        sent = files.model_files(Path(folder))
        return models.model_of(self._wire.send(*models.uploads(name, sent, progress)))

    def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Delete one with its pairs. Errors: NotFound, NotAllowed."""
        self._wire.run(models.delete_model(self._wire.known, name), timeout)

    def pair(
        self,
        target: str,
        draft: str,
        metrics: Mapping[str, float],
        *,
        timeout: float | None = None,
    ) -> ModelPair:
        """Keep what was measured of a draft with a target. Errors: NotFound, InvalidArgument."""
        return self._wire.run(models.pair(self._wire.known, target, draft, metrics), timeout)

    def evaluate(
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
    ) -> Operation:
        """Start to measure a draft with a target; the result is the metrics of the pair.

        texts, collection  what to begin with: the first prompt_tokens of each text, or of the
                           payload field `text_field` of the first `limit` points of a collection
        gamma              tokens drafted a block
        length             tokens that the target writes after each
        """
        steps = models.evaluate(
            self._wire.known, target, draft, texts, collection, text_field, limit, gamma, length,
            prompt_tokens, models.sampling_of(temperature, top_k, top_p, seed),
        )  # fmt: skip
        return Operation(self._wire, self._wire.run(steps, timeout))

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
    ) -> Generation:
        """Write on from a prompt: the pieces of text as they come.

        draft           a model with the same tokens, by which several are written in one pass; the
                        text keeps the law of the model
        collection      texts of its closest points go before the prompt: so many `passages`, by
                        full text, or by a query `vector`, of their payload field `text_field`
        draft_passages  draft from these passages, without a model
        gamma           tokens drafted a block
        longest         tokens to write
        temperature     0 is greedy
        top_k, top_p    the likeliest tokens alone
        timeout         seconds for all of it; no limit unless told

        One stream, never tried again; leaving it ends the writing. Errors: InvalidArgument,
        NotFound, NotAllowed for the collection, Unavailable.
        """
        call = models.generate(
            name, prompt, draft, collection, text_field, passages, vector, draft_passages, gamma,
            longest, models.sampling_of(temperature, top_k, top_p, seed),
        )  # fmt: skip
        return Generation(self._wire.parts(call, timeout))

    def __repr__(self) -> str:
        return f"Models({self._wire.settings.target!r})"


class Client:
    """A database that a server serves: soardb.connect("grpc://host:port") makes one.

    target               grpc://host:port, grpcs://host:port for TLS, grpc://unix:PATH
    api_key              SOARDB_API_KEY of the environment unless told
    ca                   PEM file of the roots to trust; the system's unless told
    certificate, private_key  PEM files of the client's own, where the server wants one (mTLS)
    timeout              seconds for a read, unless the call says another
    write_timeout        seconds for a write
    connections          real ones, used in turn
    retries              attempts after the first, where a second one does no harm
    gather               searches by one vector that several threads make at once share calls, of
                         which so many are under way; 0: each is a call of its own
    allow_plaintext_key  send the key over grpc:// to another machine, at your own risk

    Making one calls nobody; server_info() does. A context manager, safe for many threads. Errors:
    InvalidArgument, NotAllowed for a key over plain grpc://, NotFound for a file.
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
        gather: int = 0,
        allow_plaintext_key: bool = False,
    ) -> None:
        self._wire = Wire(
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
                gather=gather,
                allow_plaintext_key=allow_plaintext_key,
            )
        )

    @property
    def target(self) -> str:
        """The server, as it was named."""
        return self._wire.settings.target

    @property
    def models(self) -> Models:
        """The language models that the server holds."""
        return Models(self._wire)

    # ------------------------------------------------------------------ collections

    def create_collection(
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
    ) -> Collection:
        """Make a collection, durable when this returns.

        dim     dimension of the vectors, 2..4096
        metric  "cosine", "dot" or "l2"
        schema  {field: type} of the payload fields that filters use; types are int, float, bool,
                keyword, keyword_list, text, datetime, geo
        index   options of SoarIndex (nlist, soar_lambda, ...); chosen by size unless told
        ttl     a declared datetime field: a point is gone once that moment has passed
        exist_ok  return an equal collection of that name if there is one

        Errors: InvalidArgument, AlreadyExists, ReadOnly, OutOfSpace.
        """
        steps = collections.create(
            self._wire.known, name, dim, metric, schema, index, ttl, exist_ok
        )
        return Collection(self._wire, self._wire.run(steps, timeout))

    def get_collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """The collection of a name or an alias. Errors: NotFound, CorruptStorage."""
        held = self._wire.run(collections.get(self._wire.known, name), timeout)
        return Collection(self._wire, held)

    def list_collections(self, *, timeout: float | None = None) -> list[str]:
        """Names, sorted; those that the key may read."""
        return self._wire.run(collections.list_names(self._wire.known), timeout)

    def drop_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection with all its points, and the aliases that stand for it."""
        self._wire.run(collections.drop(self._wire.known, name), timeout)

    def rename_collection(self, name: str, new_name: str, *, timeout: float | None = None) -> None:
        """Give a collection another name; handles of this client and aliases go on working."""
        self._wire.run(collections.rename(self._wire.known, name, new_name), timeout)

    # ------------------------------------------------------------------ aliases

    def set_alias(self, alias: str, collection: str, *, timeout: float | None = None) -> None:
        """Let an alias stand for a collection, in the place of another if it did: at once."""
        self.set_aliases({alias: collection}, timeout=timeout)

    def set_aliases(
        self, aliases: Mapping[str, str | None], *, timeout: float | None = None
    ) -> None:
        """Change several aliases at once or not at all; None drops one."""
        self._wire.run(collections.set_aliases(self._wire.known, aliases), timeout)

    def list_aliases(self, *, timeout: float | None = None) -> dict[str, str]:
        """{alias: collection}."""
        return self._wire.run(collections.list_aliases(self._wire.known), timeout)

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
    ) -> Asking:
        """Let a language model answer a question by searching a collection: its steps as they come.

        model        one of the server's registry, or one that its settings name
        text_field   the payload field with the passages; title_field: that with their titles
        embedder     a model of the registry by which queries are searched for as vectors too; words
                     alone without it, for which the field has to be declared as text
        filter       of these points alone
        passages     that a search finds; passage_length: characters of one that are shown
        searches     at most, 1 to 10
        samples, temperature, longest  of each step; longest in tokens
        self_checks  whether the answer is checked twice
        shots        whether prompts show examples; None: to models that were not fine-tuned for it
        grammars     samples are held to the grammar of their step, by a model that can
        timeout      seconds for all of it; no limit unless told

        One stream, never tried again; leaving it ends the agent. Errors: InvalidArgument, NotFound,
        NotAllowed for the collection, MalformedOutput where the model wrote nothing that can be
        read, Unavailable.
        """
        call = agent.ask(
            collection, question, model, text_field, title_field, embedder, filter, passages,
            passage_length, searches, samples, temperature, longest, self_checks, shots, grammars,
            seed,
        )  # fmt: skip
        return Asking(self._wire.parts(call, timeout))

    # ------------------------------------------------------------------ snapshots

    def snapshot(
        self,
        name: str,
        target: str | os.PathLike[str],
        progress: Progress = quiet,
        *,
        timeout: float | None = None,
    ) -> None:
        """Write a collection, as it is now, to one new file of this machine; writes go on.

        The server makes the snapshot, sends it, and deletes its own copy where the key may do that.
        Errors: AlreadyExists for the file, NotFound for its folder or the collection.
        """
        wire, limit = self._wire, self._wire.limit(timeout)
        with files.new_file(Path(target)) as sink:
            made = self.start_snapshot(name, timeout=timeout)
            made.wait(progress=progress, timeout=limit.left_s())
            size = int(made.result.get("size", 0))
            for chunk in wire.parts(operations.download(made.last), limit.left_s()):
                sink.write(chunk.data)
                progress("download", sink.tell() / max(size, 1))
            self._forget(made.last.collection, str(made.result.get("snapshot", "")))

    def restore(
        self,
        archive: str | os.PathLike[str],
        name: str,
        progress: Progress = quiet,
        *,
        timeout: float | None = None,
    ) -> Collection:
        """A snapshot that is a file of this machine as a new collection.

        Errors: AlreadyExists, InvalidArgument, CorruptStorage. A hostile archive is refused, and
        nothing of it stays.
        """
        wire, limit = self._wire, self._wire.limit(timeout)
        wire.run(collections.expect_free(wire.known, name), timeout)
        path, messages, reply = operations.uploads(files.chunks_of(Path(archive)), progress)
        uploaded = operations.snapshot_of(wire.send(path, messages, reply))
        try:
            operation = self.start_restore(
                name, uploaded.name, source=uploaded.collection, timeout=limit.left_s()
            )
            operation.wait(progress=progress, timeout=limit.left_s())
        finally:
            self._forget(uploaded.collection, uploaded.name)
        return self.get_collection(name, timeout=limit.left_s())

    def _forget(self, name: str, snapshot: str) -> None:
        """Delete the server's copy of a snapshot, where the key may do that and it can be done."""
        with contextlib.suppress(SoarError):
            self.delete_snapshot(name, snapshot)

    def start_snapshot(self, name: str, *, timeout: float | None = None) -> Operation:
        """Make a snapshot that stays on the server; its result is {"snapshot": name, "size": n}."""
        steps = operations.start_snapshot(self._wire.known, name)
        return Operation(self._wire, self._wire.run(steps, timeout))

    def start_restore(
        self,
        name: str,
        snapshot: str,
        *,
        source: str | None = None,
        timeout: float | None = None,
    ) -> Operation:
        """Make a collection of a snapshot of `source`, or of `name`, that lies on the server."""
        steps = operations.start_restore(self._wire.known, name, source or name, snapshot)
        return Operation(self._wire, self._wire.run(steps, timeout))

    def list_snapshots(self, name: str, *, timeout: float | None = None) -> list[SnapshotInfo]:
        """The snapshots of a collection that lie on the server."""
        return self._wire.run(operations.list_snapshots(self._wire.known, name), timeout)

    def delete_snapshot(self, name: str, snapshot: str, *, timeout: float | None = None) -> None:
        """Delete a snapshot that lies on the server."""
        self._wire.run(operations.delete_snapshot(self._wire.known, name, snapshot), timeout)

    # ------------------------------------------------------------------ care

    def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Version, caps on one call, and what this client's key may do."""
        return self._wire.run(collections.server_info(self._wire.known), timeout)

    def stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Memory of the server's process, and counts and bytes of every collection: JSON values."""
        return self._wire.run(collections.stats(self._wire.known), timeout)

    def close(self) -> None:
        """End what is under way and let go of the connections."""
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.target!r})"
