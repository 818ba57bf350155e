"""The short form of the attacks: each for a moment, beside a client that goes on being served.

attacks.py -> [test_attacks.py]; `make attacks` is the long form
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.attacks import ATTACKS, attacked, fill, prepared
from tests.service.running import Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Small: few threads and short patience, so that little is needed to hold all of them."""
    folder = tmp_path_factory.mktemp("attacks") / "db"
    key = prepared(folder)
    flags = ["--threads", "4", "--max-streams", "16", "--stall-s", "5", "--slow-ms", "60000"]
    with Running(folder, *flags, key=key) as made:
        fill(made)
        yield made


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_beside_it(server: Running, name: str) -> None:
    """And memory is bounded, and threads, files and permits are there again."""
    attack, size, _ = ATTACKS[name]
    attacked(server, attack, size, calls=5)
