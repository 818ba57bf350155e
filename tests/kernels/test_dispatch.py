"""Which kernels run, and what is said when the wished for cannot be had.

    soardb.kernels.dispatch -> [test_dispatch.py]

The choice is made at import, so each one is watched in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from soardb.errors import InvalidArgument
from soardb.kernels import dispatch

REPORT = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from soardb.kernels import dispatch
chosen = dispatch.describe()
print(chosen.backend, chosen.simd, dispatch.active.__name__)
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """Import the kernels in a fresh process under these variables; nothing else is forced."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SOARDB_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", REPORT],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class TestChoice:
    @pytest.mark.parametrize("level", dispatch.levels())
    def test_simd_is_forced_by_the_environment(self, level: str) -> None:
        done = run(SOARDB_KERNELS="native", SOARDB_SIMD=level)
        assert done.stdout.split()[-3:] == ["native", level, "soardb.kernels.native"]

    @pytest.mark.parametrize(("name", "module"), [("numba", "portable"), ("reference",) * 2])
    def test_the_backend_is_forced_by_the_environment(self, name: str, module: str) -> None:
        pytest.importorskip("numba")
        done = run(SOARDB_KERNELS=name)
        assert done.stdout.split()[-3:] == [name, "none", f"soardb.kernels.{module}"]

    def test_it_is_logged_once(self) -> None:
        done = run()
        assert done.stderr.count("soardb kernels:") == 1

    def test_every_backend_offers_the_same_names(self) -> None:
        """The search classes and functions of reference.py; dispatch.Kernels is the list."""
        pytest.importorskip("numba")
        wanted = {name for name in vars(dispatch.Kernels) if name[0] != "_"}
        wanted |= set(dispatch.Kernels.__annotations__)
        for backend in ("native", "numba", "reference") if dispatch.levels() else ("numba",):
            module = dispatch.load(backend)
            assert wanted <= set(dir(module)), backend


class TestRefusals:
    def test_an_unknown_backend(self) -> None:
        done = run(SOARDB_KERNELS="fortran")
        assert done.returncode == 1
        assert "expected SOARDB_KERNELS to be one of native, numba, reference" in done.stderr
        with pytest.raises(InvalidArgument, match="fortran"):
            dispatch.load("fortran")

    def test_a_level_that_this_machine_lacks(self) -> None:
        """No silent fallback: a benchmark that asks for AVX-512 must not time something else."""
        lacking = next(name for name in dispatch.LEVELS if name not in dispatch.levels())
        with pytest.raises(InvalidArgument, match=lacking):
            dispatch.use_level(lacking)
        if dispatch.levels():
            done = run(SOARDB_KERNELS="native", SOARDB_SIMD=lacking)
            assert done.returncode == 1
            assert "expected a SIMD level of this machine" in done.stderr

    def test_an_array_of_the_wrong_type(self) -> None:
        """The kernels check no values, but never read past what they were given."""
        if not dispatch.levels():
            pytest.skip("the extension was not built")
        from soardb.kernels import _native

        out = np.empty(3, np.int32)
        with pytest.raises(TypeError):
            _native.dot_u8(np.zeros((3, 4), np.float32), np.zeros(4, np.int8), out)
        with pytest.raises(TypeError):
            _native.dot_u8(np.zeros((3, 8), np.uint8)[:, ::2], np.zeros(4, np.int8), out)
