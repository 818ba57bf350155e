"""Fetching pinned packages: the bytes that were meant, or an error that says what came.

The real clients run, without network: pip's only index is a folder with a wheel made by hand.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.packages import Package, fetch
from soardb.errors import CorruptStorage, Unavailable

pytestmark = pytest.mark.usefixtures("cache")


class TestFetch:
    @pytest.fixture
    def shelf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder that pip takes for its only index."""
        folder = tmp_path / "shelf"
        folder.mkdir()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        return folder

    def package(self, shelf: Path) -> Package:
        name = "soardb_sample-1.0-py3-none-any.whl"
        info = "soardb_sample-1.0.dist-info"
        with zipfile.ZipFile(shelf / name, "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA", "Metadata-Version: 2.1\nName: soardb-sample\nVersion: 1.0\n"
            )
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")
        sha256 = hashlib.sha256((shelf / name).read_bytes()).hexdigest()
        return Package("pip", "soardb-sample", "1.0", name, sha256)

    def test_downloads_with_pip_and_keeps_the_file(self, shelf: Path, cache: Path) -> None:
        package = self.package(shelf)
        path = fetch(package, lambda stage, fraction: None)
        assert path == cache / "packages" / package.filename
        (shelf / package.filename).unlink()
        assert fetch(package, lambda stage, fraction: None) == path

    def test_refuses_other_bytes(self, shelf: Path, cache: Path) -> None:
        package = replace(self.package(shelf), sha256="0" * 64)
        with pytest.raises(CorruptStorage, match=f"expected sha256 {'0' * 64}"):
            fetch(package, lambda stage, fraction: None)
        assert list((cache / "packages").iterdir()) == []

    def test_notices_a_cached_package_gone_bad(self, shelf: Path, cache: Path) -> None:
        package = self.package(shelf)
        path = fetch(package, lambda stage, fraction: None)
        path.write_bytes(path.read_bytes() + b"!")
        with pytest.raises(CorruptStorage, match="delete it to fetch it again"):
            fetch(package, lambda stage, fraction: None)

    def test_says_what_the_client_said(self, shelf: Path) -> None:
        package = Package("pip", "soardb-absent", "1.0", "absent.whl", "0" * 64)
        with pytest.raises(Unavailable, match="No matching distribution"):
            fetch(package, lambda stage, fraction: None)

    def test_names_a_missing_client(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        package = Package("npm", "x", "1.0", "x-1.0.tgz", "0" * 64)
        with pytest.raises(Unavailable, match="needs the program 'npm'"):
            fetch(package, lambda stage, fraction: None)
