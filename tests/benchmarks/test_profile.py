"""Where a query's time goes: the harness around the clocks, on the small set.

The clocks themselves need an extension compiled with SOARDB_PROFILE; SOARDB_CLOCKS names its
folder (`make profile` leaves it in build/profile). Without it their test is skipped.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_peers, bench_profile
from soardb.kernels import dispatch

pytest.importorskip("h5py")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pins cores through Linux"),
    pytest.mark.skipif(dispatch.describe().backend != "native", reason="asks the extension"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def measure(folder: Path, data: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOARDB_DATA", str(data))
        command = ["--dataset", bench_peers.TINY, "--nlist", "50", "--nprobe", "6"]
        command += ["--queries", "100", "--repeat", "3", "--out", str(folder), *arguments]
        code = bench_profile.main(command)
    path = folder / f"profile-{bench_peers.TINY}.json"
    return code, json.loads(path.read_text()) if path.exists() else {}


def test_without_clocks_differences_tell(tmp_path: Path, data: Path) -> None:
    """The parts are of one whole, so they add up to it whatever the noise."""
    code, report = measure(tmp_path, data)
    assert code == 0
    assert report["index"]["nlist"] == 50
    assert 0.8 < report["recall"] <= 1
    assert [part["part"] for part in report["differences"]] == [
        "6 lists", "110 re-ranked rows", "all else",
    ]  # fmt: skip
    assert "all else" in bench_profile.table(report)


def test_an_extension_without_clocks_is_refused(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table of stages would say that a query costs nothing."""
    native = sys.modules["soardb.kernels._native"]
    if native.stage_times():
        pytest.skip("the installed extension has clocks")
    folder = str(Path(str(native.__file__)).parent)
    assert measure(tmp_path, data, "--clocks", folder) == (1, {})
    assert "SOARDB_PROFILE=ON" in capsys.readouterr().err


def test_a_folder_without_extension_is_refused(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(tmp_path, data, "--clocks", str(tmp_path)) == (1, {})
    assert "make profile" in capsys.readouterr().err


@pytest.mark.skipif("SOARDB_CLOCKS" not in os.environ, reason="SOARDB_CLOCKS names no extension")
def test_stages_add_up_to_the_whole(tmp_path: Path, data: Path) -> None:
    """Scopes nest without counting a tick twice."""
    code, report = measure(tmp_path, data, "--clocks", os.environ["SOARDB_CLOCKS"])
    assert code == 0
    stages = {stage["stage"]: stage for stage in report["stages"]}
    whole = sum(stage["seconds"] for stage in stages.values())
    assert 1e6 * whole == pytest.approx(report["microseconds_with_clocks"], rel=0.05)
    for name in ("search", "prepare", "lut", "scan", "refine"):
        assert stages[name]["calls"] == pytest.approx(1.0), name
    assert stages["outside"]["seconds"] > 0
