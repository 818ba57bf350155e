"""SIFT descriptors of pictures, and how pictures are taken out of a package.

The pictures are blurred noise, the packages are built by dpkg-deb.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photographs import PHOTOS, QUERY_PHOTOS, describe, describe_all
from soardb.errors import CorruptStorage


class TestSift:
    def picture(self, suffix: str = ".png") -> bytes:
        cv2 = pytest.importorskip("cv2")
        rng = np.random.default_rng(0)
        noise = cv2.GaussianBlur(rng.integers(0, 255, (200, 300), np.uint8), (9, 9), 2)
        return bytes(cv2.imencode(suffix, noise)[1])

    def test_describes_a_picture_in_128_bytes_a_corner(self) -> None:
        found = describe(self.picture())
        assert found.shape[1] == 128
        assert found.dtype == np.uint8
        assert len(found) > 100  # measured 1,100
        lengths = np.linalg.norm(found.astype(np.float64), axis=1)
        assert (abs(lengths - 512) < 20).all()  # SIFT is of unit length, times 512

    def test_finds_nothing_in_a_blank(self) -> None:
        cv2 = pytest.importorskip("cv2")
        blank = bytes(cv2.imencode(".png", np.full((64, 64), 128, np.uint8))[1])
        assert describe(blank).shape == (0, 128)

    def test_refuses_what_is_no_picture(self) -> None:
        pytest.importorskip("cv2")
        with pytest.raises(CorruptStorage, match="cannot decode"):
            describe(b"no picture")

    def test_no_query_photograph_is_among_the_rows(self) -> None:
        for package, photos in QUERY_PHOTOS.items():
            assert not set(photos) & set(PHOTOS.get(package, ()))

    def test_takes_pictures_from_a_package_but_no_links(self, deb: Callable[..., Path]) -> None:
        """Wallpaper packages link one picture under many sizes; it must count once."""
        package = deb(
            {"usr/share/a/one.png": self.picture(), "usr/share/a/other.png": b"x"},
            links={"usr/share/a/small-one.png": "one.png"},
        )
        seen: list[float] = []
        found = describe_all(
            {"p": package}, {"p": ("one.png",)}, "s", lambda stage, fraction: seen.append(fraction)
        )
        assert (found == describe(self.picture())).all()
        assert seen == [1.0]

    def test_misses_a_picture(self, deb: Callable[..., Path]) -> None:
        package = deb({"usr/share/a/one.png": b"x"})
        with pytest.raises(CorruptStorage, match=r"two\.png"):
            describe_all({"p": package}, {"p": ("two.png",)}, "s", lambda s, f: None)
