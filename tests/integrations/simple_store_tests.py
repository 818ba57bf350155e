"""LlamaIndex's own tests of SimpleVectorStore, run on ours: a plugin of pytest.

make test-llama-index -> [simple_store_tests.py] -> soardb/integrations/llama_index.py

These tests are in the repository of LlamaIndex and in no package, so they are read from a clone of
it. They make `SimpleVectorStore()` and nothing else of it; that name is ours while they run. Every
key that they filter by is declared, those included that no node has.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import llama_index.core.vector_stores as published
import pytest

import soardb
from soardb.database import Database
from soardb.integrations.llama_index import SoardbVectorStore

SCHEMA = {
    "weight": "float",
    "rank": "keyword",
    "quality": "keyword_list",
    "identifier": "keyword",
    "unknown_field": "keyword",
    "not_existed_key": "keyword",
}
OF_ITS_FILES = ("test_from_persist_dir", "test_from_namespaced_persist_dir")

_database = pytest.StashKey[Database]()
_folder = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Put our store in the place of theirs, before the tests import it."""
    folder = tempfile.TemporaryDirectory()
    database = soardb.connect(Path(folder.name) / "db")
    names = (f"store-{number}" for number in itertools.count())

    def make() -> SoardbVectorStore:
        return SoardbVectorStore.from_target(database, next(names), dim=2, schema=SCHEMA)

    published.SimpleVectorStore = make  # type: ignore[assignment,misc]
    config.stash[_folder], config.stash[_database] = folder, database


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the database and remove it."""
    config.stash[_database].close()
    config.stash[_folder].cleanup()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the files of SimpleVectorStore."""
    out = [item for item in items if item.name in OF_ITS_FILES]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
