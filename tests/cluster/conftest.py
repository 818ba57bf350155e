"""A real Ray of this machine with four shards in processes of their own, once for all tests.

    test_*.py of this folder -> [conftest.py] -> ray, soardb.cluster

Ray is kept small: one CPU on its books, 80 MiB of objects, no dashboard. An actor needs some
seconds to start, so the tests share one cluster, and those that kill have theirs share another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'soardb[test]'")

import ray

from soardb.cluster import Cluster

SHARDS = 4
PATIENCE_S = 120.0


@pytest.fixture(scope="package")
def ray_here() -> Iterator[None]:
    """Ray, begun here and ended here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.chdir(tempfile.gettempdir()):  # Ray's workers import from there first
        ray.init(
            "local",  # whatever else is here
            num_cpus=1,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    # What "auto" means to programs that are started from here, whatever else runs beside.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    yield
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()


@pytest.fixture(scope="package")
def cluster(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four shards; a test takes away what it made."""
    storage = tmp_path_factory.mktemp("cluster") / "storage"
    with Cluster(
        "ray://auto",
        storage=storage,
        shards=SHARDS,
        timeout=PATIENCE_S,
        write_timeout=PATIENCE_S,
    ) as opened:
        yield opened
        opened.stop()


@pytest.fixture
def empty(cluster: Cluster) -> Cluster:
    """The same without collections."""
    for name in cluster.list_collections():
        cluster.drop_collection(name)
    return cluster


def folder_of(cluster: Cluster, shard: int) -> Path:
    """The directory of a shard."""
    return Path(cluster.storage) / "shards" / f"shard-{shard:04}"


@pytest.fixture(scope="package")
def bucket() -> Iterator[str]:
    """The URI of a bucket of a real HTTP server that speaks S3."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    session = boto3.session.Session(
        aws_access_key_id="key", aws_secret_access_key="word", region_name="us-east-1"
    )
    session.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="soardb")
    yield (
        f"s3://key:word@soardb/place?region=us-east-1&scheme=http&endpoint_override={host}:{port}"
    )
    server.stop()
