"""The witness: it may lag behind, never run ahead, and what it cannot vouch for it does not say.

    soardb/storage/witness.py -> [test_witness.py]

That a row store which ends before its witness is refused is tried in test_rows.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from soardb.storage.witness import Witness

NUMBERS = [0, 1, 7, 2**31, 2**63 - 1, 2**64 - 1]
IDENTITY = 2**63 - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A witness of write 123,456 of the row store 77."""
    file = tmp_path / "witness"
    witness = Witness(file, 77)
    witness.write(123_456)
    witness.close()
    return file


class TestWitness:
    @pytest.mark.parametrize("number", NUMBERS)
    def test_it_says_what_was_written(self, tmp_path: Path, number: int) -> None:
        """The last of several, within one opening and over two."""
        file = tmp_path / "witness"
        for _ in range(2):
            witness = Witness(file, IDENTITY)
            witness.write(5)
            witness.write(number)
            assert Witness.read(file) == (IDENTITY, number)
            witness.close()
            assert Witness.read(file) == (IDENTITY, number)

    def test_none_witnesses_nothing(self, tmp_path: Path) -> None:
        """No file, and one that was made and never written."""
        assert Witness.read(tmp_path / "witness") is None
        Witness(tmp_path / "witness", IDENTITY).close()
        assert Witness.read(tmp_path / "witness") is None

    def test_every_damaged_byte_silences_it(self, path: Path) -> None:
        """A wrong number could refuse a sound database, or pass a damaged one."""
        data = path.read_bytes()
        for place in range(len(data)):
            for bit in (0x01, 0x80):
                damaged = bytearray(data)
                damaged[place] ^= bit
                path.write_bytes(damaged)
                assert Witness.read(path) is None

    def test_every_other_length_silences_it(self, path: Path) -> None:
        """Cut at any byte, or grown."""
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            assert Witness.read(path) is None
        path.write_bytes(data + b"\0")
        assert Witness.read(path) is None

    def test_a_damaged_one_is_written_over(self, path: Path) -> None:
        """By the next flushed commit."""
        path.write_bytes(b"\xff" * 20)
        witness = Witness(path, 78)
        witness.write(9)
        witness.close()
        assert Witness.read(path) == (78, 9)
