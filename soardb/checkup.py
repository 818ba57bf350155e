"""Check and repair of a database directory.

    cli -> [checkup.py] -> core.py, storage/, generation.py

`check` reads everything once: SQLite's own integrity check, the checksum of every row, ids that
stand twice, the counts, payloads against the declared fields, the generation's checksums and that
its lists hold each of its rows once or twice, and the catalog against the folders. It changes
nothing and may run beside a process that writes.

`repair` saves what is sound: a damaged row store is written anew from its sound rows under their
old numbers, a damaged catalog is made from the folders, a damaged index is removed and built again
by the next open. What is replaced is kept under another name until the user deletes it. What was
lost is told, never hidden.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from soardb.core import Settings
from soardb.errors import CorruptStorage, InvalidArgument, NotFound, SoarError
from soardb.generation import open_generation
from soardb.schema import decode_payload
from soardb.storage.catalog import Catalog, as_name
from soardb.storage.format import map_arrays, sync_folder
from soardb.storage.lock import DirectoryLock
from soardb.storage.rows import RowStore, row_is_sound
from soardb.storage.salvage import salvage

__all__ = ["Finding", "Repair", "check", "repair"]

Progress = Callable[[str, float], None]

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class Repair:
    """What a repair did. lost: points that could not be saved, by collection."""

    done: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def _quiet(stage: str, share: float) -> None:
    """Report nothing."""


def check(path: str | os.PathLike[str], progress: Progress = _quiet) -> list[Finding]:
    """Everything that is wrong in a database directory; [] where all is well. O(bytes)."""
    root = Path(path)
    if not root.is_dir():
        raise NotFound(f"expected a database directory at {root}, found none")
    findings: list[Finding] = []
    try:
        catalog = Catalog.read(root / "catalog.json")
    except CorruptStorage as error:
        return [Finding("catalog.json", str(error))]
    listed = {folder: name for name, folder in catalog.collections.items()}
    findings += [
        Finding(folder, "a collection that the catalog does not list")
        for folder in sorted(_folders(root) - set(listed))
    ]
    for i, (folder, name) in enumerate(sorted(listed.items())):
        progress(f"check {name}", i / max(len(listed), 1))
        if not (root / folder).is_dir():
            findings.append(Finding(name, f"its folder {folder} is missing"))
            continue
        findings += [Finding(name, what) for what in check_folder(root / folder)]
    progress("check", 1.0)
    return findings


def _folders(root: Path) -> set[str]:
    return {e.name for e in root.iterdir() if e.is_dir() and e.name.startswith("c-")
            and "." not in e.name}  # fmt: skip


def check_folder(folder: Path) -> Iterator[str]:
    """What is wrong with one collection's folder."""
    try:
        store = RowStore(folder, 0, read_only=True)
    except SoarError as error:
        yield str(error)
        return
    try:
        yield from store.integrity()
        try:
            settings = Settings.of_json(store.setting("collection"))
        except (SoarError, KeyError, TypeError) as error:
            yield f"the settings are damaged: {error}"
            return
        store.d = settings.d
        store.gone_since(0)
        yield from _check_rows(store, settings)
        yield from _check_generation(folder, store, settings)
    except SoarError as error:
        yield str(error)
    finally:
        store.close()


def _check_rows(store: RowStore, settings: Settings) -> Iterator[str]:
    """Every row: checksum, id, payload and the counts, as of one moment."""
    ids: dict[Any, int] = {}
    count, last = 0, 0
    seq, live, records = store.everything()
    for record in records:
        row, point_id, payload = record[0], record[1], record[4]
        count, last = count + 1, row
        if not row_is_sound(settings.d, *record):
            yield f"row {row} fails its checksum"
            continue
        if point_id in ids:
            yield f"rows {ids[point_id]} and {row} both have the id {point_id!r}"
        ids[point_id] = row
        try:
            settings.schema.extract([decode_payload(payload)])
        except (InvalidArgument, CorruptStorage) as error:
            yield f"row {row}: {error}"
    if count != live:
        yield f"{count} rows, but {live} were counted when they were written"
    if last > seq:
        yield f"row {last} is beyond the last write, {seq}"


def _check_generation(folder: Path, store: RowStore, settings: Settings) -> Iterator[str]:
    pointer = store.setting("generation")
    if pointer is None:
        return
    path = folder / "index" / str(pointer["file"])
    try:
        generation = open_generation(path, settings.schema, settings.d, settings.metric)
        generation.verify()
        if generation.mapped.checksum != pointer["crc32"]:
            raise CorruptStorage(f"{path}: another generation than the one that was written here")
        generation.index.validate()
    except (NotFound, CorruptStorage) as error:
        yield f"{error} (the index is rebuilt from the rows by the next open)"
        return
    rows = generation.table.rows_at(np.arange(generation.table.n))
    for first in range(0, len(rows), 8192):
        part = rows[first : first + 8192]
        found = store.fetch(part, with_vectors=True)
        missing = [row for row in part.tolist() if row not in found]
        gone = set(store.gone_among(np.array(missing, np.int64)).tolist())
        for row in missing:
            if row not in gone:
                yield f"row {row} of the index is neither stored nor struck"


# ---------------------------------------------------------------------- repair


def repair(path: str | os.PathLike[str], progress: Progress = _quiet) -> Repair:
    """Make a database directory sound again; what cannot be saved is counted in `lost`.

    Takes the lock: no other process may have it open. Errors: InUse, NotFound.
    """
    root = Path(path)
    if not root.is_dir():
        raise NotFound(f"expected a database directory at {root}, found none")
    lock = DirectoryLock(root, allow_network=True)
    try:
        result = Repair()
        _repair_catalog(root, result)
        catalog = Catalog.read(root / "catalog.json")
        for i, (name, folder) in enumerate(sorted(catalog.collections.items())):
            progress(f"repair {name}", i / max(len(catalog.collections), 1))
            _repair_folder(root / folder, name, result)
        progress("repair", 1.0)
        return result
    finally:
        lock.release()


def _kept_name(path: Path) -> Path:
    """A name beside a file under which it is kept."""
    return path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")


def _repair_catalog(root: Path, result: Repair) -> None:
    """List every folder; a catalog that cannot be read is made from them."""
    path = root / "catalog.json"
    try:
        catalog = Catalog.read(path)
    except (NotFound, CorruptStorage) as error:
        catalog = Catalog()
        if path.exists():
            kept = _kept_name(path)
            path.rename(kept)
            result.done.append(f"the catalog was damaged ({error}), it is kept as {kept.name}")
        result.done.append("the catalog was made anew from the folders; aliases are lost")
        catalog.write(path)
    names = {n: f for n, f in catalog.collections.items() if (root / f).is_dir()}
    for name in set(catalog.collections) - set(names):
        result.done.append(f"{name}: its folder is missing, the name was dropped")
        result.lost[name] = -1
    for folder in sorted(_folders(root) - set(names.values())):
        name = _free_name(_name_in(root / folder) or folder, names)
        names[name] = folder
        result.done.append(f"{folder} is listed as {name!r}")
    aliases = {a: f for a, f in catalog.aliases.items() if f in names.values()}
    if names != dict(catalog.collections) or aliases != dict(catalog.aliases):
        Catalog(names, aliases).write(path)


def _name_in(folder: Path) -> str | None:
    """The name that a folder's row store, or else its index, says it has."""
    settings = _settings_in(folder)
    with contextlib.suppress(InvalidArgument):
        return as_name(settings.name) if settings else None
    return None


def _free_name(name: str, taken: dict[str, str]) -> str:
    lower = {known.lower() for known in taken}
    candidate, i = name, 1
    while candidate.lower() in lower:
        i += 1
        candidate = f"{name[:100]}-{i}"
    return candidate


def _settings_in(folder: Path) -> Settings | None:
    with contextlib.suppress(SoarError, KeyError, TypeError):
        store = RowStore.open_copy(folder / "rows.sqlite", 0)
        try:
            return Settings.of_json(store.setting("collection"))
        finally:
            store.close()
    for file in sorted((folder / "index").glob("*.generation")):
        with contextlib.suppress(SoarError, KeyError, TypeError):
            return Settings.of_json(map_arrays(file, "generation").parameters["settings"])
    return None


def _repair_folder(folder: Path, name: str, result: Repair) -> None:
    problems = list(check_folder(folder))
    if not problems:
        return
    result.done += [f"{name}: found: {problem}" for problem in problems[:_MOST_NAMED]]
    if len(problems) > _MOST_NAMED:
        result.done.append(f"{name}: and {len(problems) - _MOST_NAMED} more")
    if all("the index is rebuilt" in problem for problem in problems):
        result.done.append(f"{name}: the index is built again from the rows by the next open")
        _remove_index(folder)
        return
    settings = _settings_in(folder)
    if settings is None:
        result.done.append(
            f"{name}: neither the row store nor an index says what the collection is; restore a "
            "snapshot"
        )
        result.lost[name] = -1
        return
    _salvage(folder, name, settings, result)


def _salvage(folder: Path, name: str, settings: Settings, result: Repair) -> None:
    """Write the row store anew from its sound rows."""
    old, new = folder / "rows.sqlite", folder / ".salvaged"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    announced, saved = salvage(
        old,
        new,
        settings.d,
        settings.to_json(),
        settings.text_fields,
        lambda payload: _texts_of(payload, settings),
    )
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{old}{suffix}")
        if file.exists():
            file.rename(_kept_name(file))
    for file in new.iterdir():
        file.rename(folder / file.name)  # the new witness too
    new.rmdir()
    _remove_index(folder)
    sync_folder(folder)
    lost = max(announced - saved, 0) if announced is not None else -1
    result.lost[name] = lost
    told = f"{lost} of {announced} points are lost" if lost >= 0 else "how many are lost is unknown"
    result.done.append(
        f"{name}: {saved} points were saved, {told}; the old files are kept as "
        "rows.sqlite.damaged-*"
    )


def _texts_of(payload: bytes, settings: Settings) -> list[str | None] | None:
    """The declared texts of a stored payload; None where it does not fit the schema."""
    try:
        values = settings.schema.extract([decode_payload(payload)])
    except (InvalidArgument, CorruptStorage):
        return None
    return [values[name][0] for name in settings.text_fields]


def _remove_index(folder: Path) -> None:
    index = folder / "index"
    index.mkdir(exist_ok=True)
    for file in index.iterdir():
        file.unlink()
    with contextlib.suppress(SoarError):
        core_settings = RowStore(folder, 0)
        try:
            if core_settings.setting("generation") is not None:
                core_settings.begin(durable=True)
                core_settings.unset("generation")
                core_settings.commit()
        finally:
            core_settings.close()
