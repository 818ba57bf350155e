"""API keys: hashed in a file, each with scopes over patterns of collection names, and an expiry.

    soardb keys -> [keys.py] <- gate.py

A key is `soar_<8 hex digits>_<43 characters>`: the first part finds its entry, the second is 256
random bits, of which the file holds the SHA-256. So the file tells nobody a key, and a slow hash
would protect nothing. The file is replaced as a whole, readable by its owner alone, and a running
server sees the change within a second.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from soardb.errors import CorruptStorage, InvalidArgument, NotFound, SoarError
from soardb.schema import iso_of, micros_of
from soardb.storage.format import sync_folder
from soardb.storage.sqlite import translated
from soardb_proto.v1 import access_pb2

__all__ = ["SCOPES", "Grant", "Key", "KeyFile", "as_grant"]

KEYS_FORMAT = 1
SCOPES: dict[str, int] = {
    "read": access_pb2.READ,
    "write": access_pb2.WRITE,
    "admin": access_pb2.ADMIN,
}

_log = structlog.get_logger("soardb_service")

_KEY = re.compile(r"soar_([0-9a-f]{8})_([A-Za-z0-9_-]{43})", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,128}", re.ASCII)
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Grant:
    """collections: a pattern of names in which * stands for any characters; scope: see SCOPES."""

    collections: str
    scope: int

    def allows(self, collection: str, scope: int) -> bool:
        """Whether it covers this scope over this collection."""
        return self.scope >= scope and (
            self.collections == "*" or fnmatch.fnmatchcase(collection, self.collections)
        )


def as_grant(text: str) -> Grant:
    """The grant of PATTERN:SCOPE. Errors: InvalidArgument."""
    pattern, _, scope = text.rpartition(":")
    if _PATTERN.fullmatch(pattern) is None or scope not in SCOPES:
        raise InvalidArgument(
            f"expected a grant as PATTERN:SCOPE, such as words:read or 'news-*:write', with a "
            f"scope among {', '.join(SCOPES)}; got {text!r}"
        )
    return Grant(pattern, SCOPES[scope])


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of the file. expires: microseconds since 1970, or None. digest: of the secret."""

    id: str
    name: str
    digest: str
    grants: tuple[Grant, ...]
    created: int
    expires: int | None

    def is_expired(self, now: float | None = None) -> bool:
        """Whether its time is over. now: seconds since 1970."""
        return self.expires is not None and (now or time.time()) * 1e6 >= self.expires

    def to_json(self) -> dict[str, Any]:
        """JSON values; see of_json()."""
        names = {scope: name for name, scope in SCOPES.items()}
        return {
            "id": self.id,
            "name": self.name,
            "sha256": self.digest,
            "grants": [f"{g.collections}:{names[g.scope]}" for g in self.grants],
            "created": iso_of(self.created),
            "expires": None if self.expires is None else iso_of(self.expires),
        }

    @classmethod
    def of_json(cls, given: dict[str, Any]) -> Key:
        """A key of to_json(). Errors: KeyError, TypeError, ValueError."""
        expires = given["expires"]
        return cls(
            str(given["id"]),
            str(given["name"]),
            str(given["sha256"]),
            tuple(as_grant(text) for text in given["grants"]),
            micros_of(given["created"]),
            None if expires is None else micros_of(expires),
        )


class KeyFile:
    """The keys of a file, read again when it changes. A missing file holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -_LOOK_S
        self._damage: str | None = None

    # ---- asking ----

    def find(self, text: str) -> Key | None:
        """The key with this text, expired or not; None for any other text."""
        match = _KEY.fullmatch(text)
        entry = self.keys().get(match[1]) if match else None
        digest = hashlib.sha256(match[2].encode() if match else b"").hexdigest()
        # One comparison whatever came, so that the time says nothing.
        is_same = hmac.compare_digest(digest, entry.digest if entry else "0" * 64)
        return entry if is_same else None

    def keys(self) -> dict[str, Key]:
        """Every key by its id. Errors: CorruptStorage, again and again until it is mended."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._look()
            self._looked = now
        if self._damage is not None:
            raise CorruptStorage(self._damage)
        return self._keys

    @property
    def is_there(self) -> bool:
        """Whether there is such a file, with keys in it or none."""
        return self._stamp_now() is not None

    def _look(self) -> None:
        """Read the file if it changed. What cannot be read has no keys that are good."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp and self._damage is None:
                return
            keys = {} if stamp is None else self._read()
        except (CorruptStorage, OSError) as error:
            if self._damage is None:
                _log.error("keys cannot be read; every call is refused", why=str(error))
            self._keys, self._damage = {}, str(error)
            return
        if self._damage is not None:
            _log.info("keys can be read again", keys=len(keys))
        self._keys, self._stamp, self._damage = keys, stamp, None

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, Key]:
        try:
            body = json.loads(self.path.read_text("utf-8"))
            if body["format"] != KEYS_FORMAT:
                raise CorruptStorage(
                    f"{self.path}: format {body['format']!r}, this soardb reads {KEYS_FORMAT}"
                )
            keys = [Key.of_json(entry) for entry in body["keys"]]
        except (SoarError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CorruptStorage):
                raise
            raise CorruptStorage(
                f"{self.path}: not a file of keys of ours: {error!r}; no key is accepted until it "
                "is mended or removed"
            ) from None
        return {key.id: key for key in keys}

    # ---- changing ----

    def add(
        self, name: str, grants: Sequence[Grant], expires: int | None = None
    ) -> tuple[Key, str]:
        """Make a key; returns it and its text, which is told this once. Errors: InvalidArgument."""
        if not name or len(name) > 128 or not name.isprintable():
            raise InvalidArgument(
                f"expected a name of 1..128 printable characters for a key, got {name!r}"
            )
        if not grants:
            raise InvalidArgument("expected one grant or more, such as '*:read'")
        if expires is not None and expires <= time.time() * 1e6:
            raise InvalidArgument(f"expected an expiry in the future, got {iso_of(expires)}")
        secret = secrets.token_urlsafe(32)
        key = Key(
            secrets.token_hex(4),
            name,
            hashlib.sha256(secret.encode()).hexdigest(),
            tuple(grants),
            int(datetime.now(UTC).timestamp() * 1e6),
            expires,
        )
        self._change(lambda keys: keys | {key.id: key})
        return key, f"soar_{key.id}_{secret}"

    def revoke(self, key_id: str) -> Key:
        """Remove a key; refused from the next second on. Errors: NotFound."""
        removed: list[Key] = []

        def without(keys: dict[str, Key]) -> dict[str, Key]:
            if key_id not in keys:
                raise NotFound(f"expected the id of a key in {self.path}, there is no {key_id!r}")
            removed.append(keys[key_id])
            return {k: v for k, v in keys.items() if k != key_id}

        self._change(without)
        return removed[0]

    def _change(self, change: Any) -> None:
        """Replace the file, one process at a time."""
        folder = self.path.resolve().parent
        with translated(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{self.path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = change(self._read() if self.path.exists() else {})
                body = {"format": KEYS_FORMAT, "keys": [k.to_json() for k in keys.values()]}
                temporary = folder / f"{self.path.name}.{secrets.token_hex(8)}"
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(body, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(self.path)
                sync_folder(folder)
        self._looked = -_LOOK_S
