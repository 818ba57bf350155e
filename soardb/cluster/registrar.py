"""The registrar: the one writer of a cluster's catalog, and the maker of its shards.

    cluster.py (as a Ray actor) -> [registrar.py] -> catalog.py, storage.py, calls.py, shard.py

It owns nothing that is not in the storage: an actor that takes its place reads the catalog and goes
on. A collection is made on every shard under a new id and is there once the catalog lists it; one
that is dropped is gone once the catalog does not. What a crash leaves between the two, shards drop
when they are next told what is listed.

Changes carry a request id, and the answer is written with the change. So one that is asked for
again after a lost reply is done once.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from soardb.cluster.calls import REGISTRAR, Actors, Job, shard_name
from soardb.cluster.catalog import ClusterCatalog, Listed
from soardb.cluster.moves import Copy
from soardb.cluster.places import (
    alive_nodes,
    bound_to,
    end_actors,
    holder_of,
    on_node,
    remove_copies,
    shared_strategy,
    this_node,
)
from soardb.cluster.shard import Shard
from soardb.cluster.storage import storage_of
from soardb.core import Settings
from soardb.errors import AlreadyExists, InvalidArgument, NotFound, SoarError, Unavailable
from soardb.storage.catalog import as_name, new_folder

__all__ = ["CATALOG", "Layout", "Registrar", "located", "make_registrar"]

_log = logging.getLogger("soardb")

CATALOG = "soardb-cluster.json"
_ENSURE_S = 60.0  # for the registrar to make an actor
_SHARD_S = 60.0  # a shard has so long for a change of the catalog
_SWEEP_S = 10.0  # for what may as well be done later
_READY_S = 600.0  # a shard has so long to open what it took over
_LINGER_S = 10.0  # calls under way have so long on a shard that has moved

# How many threads of an actor methods may take together. Whatever waits for a disk or a build must
# not keep a search from running.
_THREADS = {"reads": 8, "writes": 8, "care": 4, "moves": 4}
_METHODS = {
    "reads": ["search", "get", "there", "page", "count", "describe", "loaded"],
    "writes": ["put", "update_payload", "delete", "flush", "begin_load", "load_part"],
    "care": ["batches", "compact", "tune", "snapshot", "restore", "end_load"],
    "moves": [
        *("list_parts", "read_part", "write_part", "finish_parts", "drop_parts"),
        *("cede", "ceded_to", "resume", "ready", "leave"),
    ],
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a driver says when it connects.

    shards   of a cluster that is to be made; None: DEFAULT_SHARDS. Of one that is there it must fit
    data     folder on each node for the shards; None: in the storage, which is then a folder
    cpus     of Ray's books for each shard
    options  of the shards' databases: memory_limit, allow_network
    """

    storage: str
    shards: int | None
    data: str | None
    cpus: float
    options: Mapping[str, Any]


class ShardActor(Shard):
    """A shard that Ray calls, and that knows where it is."""

    def node(self) -> str:
        """The id of its node."""
        return this_node()


for _group, _names in _METHODS.items():
    for _name in _names:
        # Said here and not with each call, as Ray Client knows no such option of a call. Ray looks
        # for it below what wraps a method.
        ray.method(concurrency_group=_group)(inspect.unwrap(getattr(ShardActor, _name)))


class Registrar:
    """See above. Safe for many threads; made by make_registrar()."""

    def __init__(self, namespace: str, layout: Layout) -> None:
        self._layout = layout
        self._storage = storage_of(layout.storage)
        self._actors = Actors(namespace, self._locate)
        self._namespace = namespace
        self._lock = threading.RLock()  # of the catalog
        self._shards_lock = threading.Lock()  # one makes a shard at a time
        self._making: set[str] = set()  # ids that shards have and the catalog does not list yet
        self._known: ClusterCatalog | None = None
        self._has_read = self._is_swept = False
        self._moving = threading.Lock()  # one shard at a time
        self._under_way: str | None = None  # the shard that moves

    # ------------------------------------------------------------------ the cluster

    def open(self, layout: Layout, default_shards: int) -> tuple[str, int]:
        """Make the cluster if there is none, and its shards' actors: its id, how many shards.

        Errors: InvalidArgument where it was made otherwise, Unavailable.
        """
        with self._lock:
            catalog = self._read()
            if catalog is None:
                catalog = self._known = self._made(layout, default_shards)
        if layout.shards not in (None, catalog.shards):
            raise InvalidArgument(
                f"expected shards={catalog.shards}, as this cluster was made, got {layout.shards}; "
                "points are placed by it: export and import to have another number"
            )
        if layout.data is not None and layout.data != catalog.data:
            raise InvalidArgument(
                f"expected data={catalog.data!r}, as this cluster was made, got {layout.data!r}"
            )
        for number in range(catalog.shards):
            try:
                self.ensure(shard_name(number))
            except Unavailable as error:  # its node is away: whoever asks for it is told
                _log.warning("%s", error)
        self._sweep()
        return catalog.cluster, catalog.shards

    def _made(self, layout: Layout, default_shards: int) -> ClusterCatalog:
        """A new cluster: the directories first, so that a catalog never lists one that is not."""
        if layout.data is None and self._storage.folder is None:
            raise InvalidArgument(
                f"expected data=, a folder on each node for its shards, beside the storage "
                f"{layout.storage!r}, which is no folder; got none"
            )
        shards = default_shards if layout.shards is None else layout.shards
        catalog = ClusterCatalog(secrets.token_hex(8), shards, layout.data)
        names = [shard_name(number) for number in range(shards)]
        for name in names:
            self._start(catalog, name, is_new=True)
        self._actors.all(dict.fromkeys(names, Job("make")), _SHARD_S)
        self._storage.replace(CATALOG, catalog.to_bytes())
        return catalog

    def _read(self) -> ClusterCatalog | None:
        """What the storage says, read by the first who asks; None where it has no cluster yet.

        Not when the process begins: whoever asks can be told what is wrong with the storage, where
        Ray would only say that an actor died. Errors: CorruptStorage, Unavailable.
        """
        with self._lock:
            if not self._has_read:
                data = self._storage.read(CATALOG)
                self._known = None if data is None else ClusterCatalog.of_bytes(data, CATALOG)
                self._has_read = True
                self._end_strangers()
            return self._known

    def _catalog(self) -> ClusterCatalog:
        catalog = self._known  # whose readers wait for no writer
        if catalog is None:
            catalog = self._read()
        if catalog is None:
            raise Unavailable("the cluster was not made yet; connect to it anew")
        return catalog

    # ------------------------------------------------------------------ shards

    def ensure(self, name: str) -> str:
        """Make the actor of a shard, if Ray has none: under which name. Errors: Unavailable."""
        with self._shards_lock:
            catalog = self._catalog()
            place = catalog.place_of(name)
            try:
                actor = ray.get_actor(place, namespace=self._namespace)
            except ValueError:
                self._start(catalog, name, is_new=False)
                return place
        if name != self._under_way:
            threading.Thread(target=self._resume, args=(name, actor), daemon=True).start()
        return place

    def _resume(self, name: str, actor: Any) -> None:
        """Let a shard take writes again, where a move of it came to nothing."""
        with contextlib.suppress(RayError):
            ceded_to = _moves(actor, "ceded_to", timeout=_SHARD_S)
            if ceded_to is not None and name != self._under_way:
                _moves(actor, "resume", ceded_to, timeout=_SHARD_S)

    def _locate(self, actors: Actors, name: str) -> str:
        # Before the catalog is there, and while a shard moves, actors are called as they are named.
        is_shard = self._known is not None and name in self._shards()
        return self.ensure(name) if is_shard else name

    def _start(self, catalog: ClusterCatalog, name: str, *, is_new: bool) -> None:
        place, number = catalog.place_of(name), int(name.rpartition("-")[2])
        path = self._path_of(catalog, name, place)
        if catalog.data is None:
            strategy = shared_strategy(number)
        else:
            strategy = holder_of(str(path), number if is_new else None)
        self._make(place, path, number, catalog.homes.get(name, ""), strategy)

    def _make(self, place: str, path: Path, number: int, token: str, strategy: Any) -> Any:
        made: Any = ray.remote  # typed for other classes
        actor = made(concurrency_groups=_THREADS)(ShardActor)
        return actor.options(
            name=place,
            namespace=self._namespace,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=4,
            num_cpus=self._layout.cpus,
            scheduling_strategy=strategy,
            get_if_exists=True,
        ).remote(str(path), number, dict(self._layout.options), token)

    def _path_of(self, catalog: ClusterCatalog, name: str, place: str) -> Path:
        """The directory of a shard: where all nodes see it, it stays when the shard moves."""
        if catalog.data is not None:
            return Path(catalog.data) / f"soardb-{catalog.cluster}" / place
        assert self._storage.folder is not None
        return self._storage.folder / "shards" / name

    # ------------------------------------------------------------------ moving shards

    def nodes(self) -> tuple[dict[str, str], dict[str, str]]:
        """{shard: id of its node}, and {id: address} of the nodes that are alive."""
        places = self._actors.all(dict.fromkeys(self._shards(), Job("node")), _SHARD_S)
        return places, alive_nodes()

    def move(self, name: str, node: str) -> None:
        """Let a shard be on a node; see moves.py. Twice is once.

        Errors: Unavailable where an actor or a node is lost meanwhile: the shard is where it was.
        """
        with self._moving:
            from_node = self._actors.one(name, Job("node"), _SHARD_S)
            if from_node == node:
                return
            if node not in alive_nodes():
                raise Unavailable(f"expected a node of the cluster for {name}, {node} is none now")
            self._under_way = name
            try:
                source = self._moved(name, node)
            finally:
                self._under_way = None
            with contextlib.suppress(RayError):
                _moves(source, "leave", _LINGER_S, timeout=2 * _LINGER_S)
            ray.kill(source, no_restart=True)
            self._remove_copies([from_node])

    def _moved(self, name: str, node: str) -> Any:
        """Move a shard; the actor that had it."""
        catalog, token = self._catalog(), secrets.token_hex(4)
        source = ray.get_actor(self.ensure(name), namespace=self._namespace)
        place = f"{name}-{token}"
        path, number = self._path_of(catalog, name, place), int(name.rpartition("-")[2])
        is_shared = catalog.data is None
        target = self._make(place, path, number, token, bound_to(node))
        try:
            copy = None if is_shared else Copy(source, target, token)
            if copy is not None:
                copy.most()
            marks = self._actors.one(name, Job("cede", (token, is_shared)), _SHARD_S)
            if copy is not None:
                copy.rest(marks)
            self._actors.one(place, Job("ready"), _READY_S)
            with self._shards_lock:  # nobody is told of the new one before the old one has ended
                with self._lock:
                    catalog = self._catalog()
                    self._save(replace(catalog, homes={**catalog.homes, name: token}))
                with contextlib.suppress(RayError):
                    _moves(source, "leave", 0.0, timeout=_LINGER_S)
        except BaseException:
            if self._catalog().homes.get(name) != token:
                self._undo(source, target, token, is_shared)
            raise
        return source

    def _undo(self, source: Any, target: Any, token: str, is_shared: bool) -> None:
        """What is not undone now is when the shard is next looked for."""
        with contextlib.suppress(RayError):
            if not is_shared:
                _moves(target, "drop_parts", timeout=_LINGER_S)
        ray.kill(target, no_restart=True)
        with contextlib.suppress(RayError):
            _moves(source, "resume", token, timeout=_LINGER_S)

    def _end_strangers(self) -> None:
        """End actors of shards which the catalog does not name: a crash came between the two."""
        if self._known is None:
            return
        ours = {self._known.place_of(name) for name in self._shards()}
        end_actors(self._namespace, {REGISTRAR, *ours})

    def _remove_copies(self, nodes: Iterable[str]) -> None:
        """Let nodes remove the directories of shards that are elsewhere now."""
        catalog = self._catalog()
        if catalog.data is None:
            return
        folder = str(self._path_of(catalog, "", ""))
        with contextlib.suppress(RayError):  # a node that is lost: the next registrar does it
            asked = [on_node(node, remove_copies, folder, dict(catalog.homes)) for node in nodes]
            ray.get(asked, timeout=_SHARD_S)

    def _sweep(self) -> None:
        """Once in the life of this process: let shards drop what a crash left unlisted.

        An id that a shard has is listed, or being made, or never will be listed: ids are not used
        again. So it does no harm if a shard is told late.
        """
        with self._lock:
            if self._is_swept:
                return
            self._is_swept = True
        names = self._shards()
        with self._moving:
            self._remove_copies(alive_nodes())
        answers = self._actors.ask(dict.fromkeys(names, Job("collections")), _SWEEP_S)
        with self._lock:
            kept = {*self._catalog().listed, *self._making}
        for name, held in answers.found.items():
            self._delete(set(held) - kept, [name])

    def _delete(self, ids: set[str], names: list[str]) -> None:
        """What shards cannot delete now, the next registrar lets them delete."""
        if not ids:
            return
        answers = self._actors.ask(dict.fromkeys(names, Job("drop", (sorted(ids),))), _SWEEP_S)
        for name, why in (*answers.missing.items(), *answers.refused.items()):
            _log.warning("%s: what was dropped is not deleted there yet: %s", name, why)

    # ------------------------------------------------------------------ what there is

    def find(self, name: str) -> tuple[str, str, dict[str, Any], str | None]:
        """Name, id, settings and kind of ids of a collection or an alias. Errors: NotFound."""
        catalog = self._catalog()
        found = catalog.names.folder_of(name)
        if found is None:
            as_name(name)
            raise NotFound(
                f"expected a collection of {self._layout.storage}, there is no {name!r}; there are "
                f"{', '.join(sorted(catalog.names.collections)) or 'none'}"
            )
        held = catalog.listed[found]
        settings = held.settings.to_json()
        settings["schema"] = dict(sorted(settings["schema"].items()))  # as a row store keeps it
        return catalog.names.name_of(found) or name, found, settings, held.id_kind

    def check_free(self, name: str) -> None:
        """AlreadyExists where a collection or an alias has this name, in whatever case."""
        self._catalog().names.check_free(name)

    def kind_of(self, id: str) -> str | None:
        """The kind of ids of a collection, by its id; None before the first write, or no more."""
        held = self._catalog().listed.get(id)
        return None if held is None else held.id_kind

    def list_collections(self) -> list[str]:
        """Names, sorted."""
        return sorted(self._catalog().names.collections)

    def list_aliases(self) -> dict[str, str]:
        """{alias: collection}."""
        names = self._catalog().names
        return {alias: names.name_of(id) or "" for alias, id in sorted(names.aliases.items())}

    # ------------------------------------------------------------------ changing it

    def create(self, name: str, settings: Mapping[str, Any], exist_ok: bool, request: str) -> str:
        """Make a collection on every shard and list it; its name then is in the catalog."""
        wanted = Settings.of_json(dict(settings) | {"name": name})

        def make(id: str) -> Listed:
            made = replace(wanted, name=id)
            self._actors.all(
                dict.fromkeys(self._shards(), Job("create", (made.to_json(),))), _SHARD_S
            )
            return Listed(made)

        while True:
            with self._lock:
                if self._answered(request):
                    return name
                catalog = self._catalog()
                held = catalog.names.folder_of(name)
                if exist_ok and held is not None:
                    replace(catalog.listed[held].settings, name=name).expect_same(wanted)
                    return name
                catalog.names.check_free(name)
            try:
                return self._listed(name, request, make)
            except AlreadyExists:
                if not exist_ok:
                    raise

    def restore(
        self, name: str, storage: str, files: list[str], settings: Mapping[str, Any], request: str
    ) -> str:
        """Make a collection of the parts of a snapshot, one a shard, and list it."""
        wanted = Settings.of_json(dict(settings) | {"name": name})
        with self._lock:
            if self._answered(request):
                return name
            self._catalog().names.check_free(name)

        def make(id: str) -> Listed:
            jobs = {
                shard_name(number): Job("restore", (id, storage, file))
                for number, file in enumerate(files)
            }
            kinds = {kind for kind in self._actors.all(jobs, None).values() if kind is not None}
            return Listed(replace(wanted, name=id), next(iter(kinds), None))

        return self._listed(name, request, make)

    def _listed(self, name: str, request: str, make: Callable[[str], Listed]) -> str:
        """Let `make` have a new id on every shard, and list it."""
        id = new_folder()
        with self._lock:
            self._making.add(id)
        try:
            made = make(id)
            with self._lock:
                catalog = self._catalog()
                if self._answered(request):  # asked twice at once; the other one was faster
                    return name
                catalog.names.check_free(name)
                names = catalog.names.with_collection(name, id)
                listed = {**catalog.listed, id: made}
                self._write(replace(catalog, names=names, listed=listed), request)
                return name
        finally:
            with self._lock:
                self._making.discard(id)
                is_listed = id in self._catalog().listed
            if not is_listed:
                self._delete({id}, self._shards())

    def drop(self, name: str, request: str) -> None:
        """Unlist a collection and its aliases, then let shards delete it."""
        with self._lock:
            if self._answered(request):
                return
            catalog = self._catalog()
            id = catalog.names.collections.get(as_name(name))
            if id is None:
                raise NotFound(f"expected a collection to drop, there is no {name!r}")
            listed = {k: v for k, v in catalog.listed.items() if k != id}
            names = catalog.names.without(id)
            self._write(replace(catalog, names=names, listed=listed), request)
        self._delete({id}, self._shards())

    def rename(self, name: str, new_name: str, request: str) -> None:
        """See Database.rename_collection."""
        with self._lock:
            if not self._answered(request):
                catalog = self._catalog()
                names = catalog.names.renamed(name, new_name)
                self._write(replace(catalog, names=names), request)

    def set_aliases(self, aliases: Mapping[str, str | None], request: str) -> None:
        """See Database.set_aliases."""
        with self._lock:
            if not self._answered(request):
                catalog = self._catalog()
                names = catalog.names.with_aliases(aliases)
                self._write(replace(catalog, names=names), request)

    def fix_kind(self, id: str, kind: str) -> str | None:
        """The kind of ids of a collection, which the first write decides; None where it is gone."""
        with self._lock:
            catalog = self._catalog()
            held = catalog.listed.get(id)
            if held is None or held.id_kind is not None:
                return None if held is None else held.id_kind
            listed = {**catalog.listed, id: replace(held, id_kind=kind)}
            self._save(replace(catalog, listed=listed))
            return kind

    def _answered(self, request: str) -> bool:
        return request in self._catalog().answered

    def _write(self, catalog: ClusterCatalog, request: str) -> None:
        """Make it the current one, with the request that wanted it."""
        self._save(catalog.answering(request, int(time.time())))

    def _save(self, catalog: ClusterCatalog) -> None:
        """Make it the current one, durably. After an error it is what the storage then says."""
        try:
            self._storage.replace(CATALOG, catalog.to_bytes())
        except SoarError:
            data = self._storage.read(CATALOG)
            if data is not None:
                self._known = ClusterCatalog.of_bytes(data, CATALOG)
            raise
        self._known = catalog

    def _shards(self) -> list[str]:
        return [shard_name(number) for number in range(self._catalog().shards)]


def _moves(actor: Any, method: str, *arguments: Any, timeout: float) -> Any:
    """The answer of an actor that moves. Errors: RayError."""
    return ray.get(getattr(actor, method).remote(*arguments), timeout=timeout)


def located(layout: Layout, actors: Actors, name: str) -> str:
    """Ray's name of an actor, made anew where it is gone, for all but the registrar itself.

    Errors: Unavailable.
    """
    if name == REGISTRAR:
        make_registrar(actors.namespace, layout)
        return name
    place: str = actors.one(REGISTRAR, Job("ensure", (name,)), _ENSURE_S)
    return place


def make_registrar(namespace: str, layout: Layout) -> None:
    """Make the registrar's actor of a namespace, if Ray has none. It outlives who asked."""
    ray.remote(Registrar).options(
        name=REGISTRAR,
        namespace=namespace,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=32,
        num_cpus=0,
        get_if_exists=True,
    ).remote(namespace, layout)
