"""The targets on which every test of an adapter runs.

    test_langchain.py, test_llama_index.py -> [conftest.py] -> soardb.connect

The adapters call public methods alone, so whatever soardb.connect returns must do: a directory and
a server, which is one process for all tests and empty at the beginning of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import soardb
from tests.service.conftest import Served

TARGETS = ["embedded", "grpc"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("integrations") / "db") as served:
        yield served


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty database."""
    if request.param == "embedded":
        with soardb.connect(tmp_path / "db") as database:
            yield database
        return
    served: Served = request.getfixturevalue("server")
    with soardb.connect(served.target) as client:
        for name in client.list_collections():
            client.drop_collection(name)
        yield client
