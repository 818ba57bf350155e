"""The catalog: which names a database has, and the folder that each stands for.

    database.py -> [catalog.py]

One small checksummed JSON file, replaced as a whole, so that several names change at once or not at
all. A user's name never becomes a path: folders have generated names, and each folder's row store
knows its own name and settings, so a catalog that is lost can be made again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soardb.errors import AlreadyExists, CorruptStorage, InvalidArgument, NotFound
from soardb.storage.faults import reach
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated

__all__ = ["CATALOG_FORMAT", "Catalog", "as_name", "new_folder"]

CATALOG_FORMAT = 1

_SETTLED_S = 2.0  # FAT tells no less
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_FOLDER = re.compile(r"c-[0-9a-f]{16}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}


def as_name(name: object, what: str = "collection") -> str:
    """A name of 1..128 letters, digits, dots, dashes and underscores. Errors: InvalidArgument."""
    is_good = (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and not name.endswith(".")
        and name.partition(".")[0].lower() not in _RESERVED
    )
    if not is_good:
        text = repr(name)
        raise InvalidArgument(
            f"expected the name of a {what} as 1..128 ASCII letters, digits, '.', '-' and '_', "
            "beginning with a letter or digit, not ending with '.', and no device name such as "
            f"CON; got {text if len(text) < 100 else text[:97] + '...'}"
        )
    return str(name)


def new_folder() -> str:
    """A folder name that no collection has had."""
    return f"c-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """collections: folder by name; aliases: folder by alias. Never changed in place."""

    collections: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Catalog:
        """The catalog of a file. Errors: CorruptStorage."""
        with translated(path):
            text = path.read_bytes()
        try:
            outer = json.loads(text)
            if outer["format"] != CATALOG_FORMAT:
                raise CorruptStorage(
                    f"{path}: format {outer['format']!r}, this soardb reads {CATALOG_FORMAT}"
                )
            if zlib.crc32(_canonical(outer["body"])) != outer["crc32"]:
                raise CorruptStorage(f"{path}: the checksum fails; run `soardb repair`")
            body = outer["body"]
            catalog = cls(dict(body["collections"]), dict(body["aliases"]))
            for folder in [*catalog.collections.values(), *catalog.aliases.values()]:
                if not _FOLDER.fullmatch(folder):
                    raise CorruptStorage(f"{path}: {folder!r} is no folder of ours")
            return catalog
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptStorage(
                f"{path}: not a catalog of ours ({error}); run `soardb repair`"
            ) from None

    @staticmethod
    def stamp(path: Path) -> tuple[int, int, int] | None:
        """What changes whenever the file is replaced; None while it may change unseen.

        A file system may tell times some milliseconds apart only, and give the number of a file
        away again, so a file of this very moment has none.
        """
        with translated(path):
            found = path.stat()
        if time.time() - found.st_mtime < _SETTLED_S:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def write(self, path: Path) -> None:
        """Replace the file: temporary, flush, rename, flush of the folder."""
        body = {"collections": dict(self.collections), "aliases": dict(self.aliases)}
        outer = {"format": CATALOG_FORMAT, "crc32": zlib.crc32(_canonical(body)), "body": body}
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with translated(path):
            try:
                with temporary.open("xb") as file:
                    file.write(json.dumps(outer, indent=1).encode())
                    file.flush()
                    os.fsync(file.fileno())
                reach("catalog.before_rename")
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)

    def folder_of(self, name: str) -> str | None:
        """The folder of a collection or an alias."""
        return self.collections.get(name) or self.aliases.get(name)

    def name_of(self, folder: str) -> str | None:
        """The collection that a folder is."""
        return next((n for n, f in self.collections.items() if f == folder), None)

    def clash(self, name: str) -> str | None:
        """A collection or alias that has this name but for upper and lower case."""
        names = [*self.collections, *self.aliases]
        return next((known for known in names if known.lower() == name.lower()), None)

    # ------------------------------------------------------------------ changed copies

    def check_free(self, name: str) -> None:
        """AlreadyExists where a collection or an alias has this name, in whatever case."""
        clash = self.clash(name)
        if clash is not None:
            kind = "alias" if clash in self.aliases else "collection"
            but = "" if clash == name else ", which differs only in upper and lower case"
            raise AlreadyExists(
                f"expected a new name, got {name!r}: {kind} {clash!r} is there{but}"
            )

    def with_collection(self, name: str, folder: str) -> Catalog:
        """With one more; whether the name is free is the caller's affair."""
        return Catalog({**self.collections, name: folder}, self.aliases)

    def without(self, folder: str) -> Catalog:
        """Without a folder, its name and its aliases."""
        return Catalog(
            {n: f for n, f in self.collections.items() if f != folder},
            {a: f for a, f in self.aliases.items() if f != folder},
        )

    def renamed(self, name: str, new_name: str) -> Catalog:
        """With another name for a collection. Errors: NotFound, AlreadyExists, InvalidArgument."""
        folder = self.collections.get(as_name(name))
        if folder is None:
            raise NotFound(f"expected a collection to rename, there is no {name!r}")
        as_name(new_name)
        if new_name.lower() != name.lower():
            self.check_free(new_name)
        names = {new_name if f == folder else n: f for n, f in self.collections.items()}
        return Catalog(names, self.aliases)

    def with_aliases(self, aliases: Mapping[str, str | None]) -> Catalog:
        """With aliases for collections; None drops one. Errors: as renamed()."""
        changed = dict(self.aliases)
        for alias, collection in aliases.items():
            if collection is None:
                if changed.pop(as_name(alias, "alias"), None) is None:
                    raise NotFound(f"expected an alias to drop, there is no {alias!r}")
                continue
            folder = self.folder_of(as_name(collection))
            if folder is None:
                raise NotFound(f"expected a collection for the alias, no {collection!r}")
            if as_name(alias, "alias") not in changed:
                self.check_free(alias)
            changed[alias] = folder
        return Catalog(self.collections, changed)


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
