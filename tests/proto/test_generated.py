"""The committed Python of the protocol is what its .proto files say.

    proto/soardb_proto/v1 -> [test_generated.py] -> .ci/protoc

Nobody edits what is generated, and nobody forgets to generate it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generating_it_again_changes_nothing(tmp_path: Path) -> None:
    """Generated code that is edited, or forgotten after a change, is found."""
    subprocess.run([sys.executable, str(ROOT / ".ci/protoc"), str(tmp_path)], check=True)
    fresh = {file.name: file for file in (tmp_path / "soardb_proto/v1").iterdir()}
    folder = ROOT / "proto/soardb_proto/v1"
    committed = {file.name for file in folder.glob("*_pb2.py*")}
    assert set(fresh) == committed
    stale = [
        name
        for name, file in sorted(fresh.items())
        if file.read_bytes() != (folder / name).read_bytes()
    ]
    assert not stale, "run `make proto`"
