"""What the tests of the data sets share: an empty cache, the tiny set, packages made by hand.

    benchmarks.datasets, dpkg-deb -> [conftest.py] -> test_*.py

Nothing here, and none of these tests, needs network.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import datasets


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for one test."""
    monkeypatch.setenv("SOARDB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache: Path) -> datasets.Dataset:
    """tiny-32-angular, made in that cache."""
    pytest.importorskip("h5py")
    return datasets.load("tiny-32-angular")


@pytest.fixture
def deb(tmp_path: Path) -> Callable[..., Path]:
    """Build a Debian package of these files and symbolic links: deb(files, links) -> its path."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")

    def build(files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
        root = tmp_path / "root"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        for name, target in (links or {}).items():
            (root / name).symlink_to(target)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN" / "control").write_text(
            "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
            "Description: sample\n"
        )
        path = tmp_path / "sample.deb"
        subprocess.run(["dpkg-deb", "--build", root, path], check=True, capture_output=True)
        return path

    return build
