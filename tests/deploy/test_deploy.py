"""What deploy/ starts is a server that there is: every flag is known, every port and path agrees.

    deploy/ -> [test_deploy.py] -> soardb_service/config.py

Containers and units cannot be started here; what they say to `soardb serve` can be read as it is.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from soardb.errors import InvalidArgument
from soardb_service.config import ServerConfig

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def config_of(arguments: list[str], tmp_path: Path) -> ServerConfig:
    """The settings of a command line, with files that stand for those of the deployment."""
    file = tmp_path / "file"
    file.touch()
    ours = [
        re.sub(r"^(--tls-\w+=)?/etc/soardb/.*\.(crt|key)$", rf"\g<1>{file}", a) for a in arguments
    ]
    return ServerConfig.of(ours)


def dockerfile() -> dict[str, list[str]]:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    return {
        word: json.loads(value)
        for word, value in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", text, re.M)
    }


def manifests() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


class TestDockerfile:
    def test_it_starts_a_server_with_settings_that_there_are(self, tmp_path: Path) -> None:
        """A flag that was renamed would stop the container at start."""
        found = dockerfile()
        program, verb, *rest = found["ENTRYPOINT"]
        assert (program, verb) == ("soardb", "serve")
        config = config_of([*rest, *found["CMD"]], tmp_path)
        text = (DEPLOY / "Dockerfile").read_text("utf-8")
        assert f"VOLUME {config.directory}" in text
        assert f"EXPOSE {config.port} {config.rest_port}" in text

    def test_without_a_key_it_refuses_to_listen(self, tmp_path: Path) -> None:
        """A container that is started without a thought is not an open door."""
        found = dockerfile()
        config = config_of([*found["ENTRYPOINT"][2:], *found["CMD"]], tmp_path)
        with pytest.raises(InvalidArgument, match="soardb keys add"):
            config.check_exposure(has_keys=False)
        config.check_exposure(has_keys=True)


class TestSystemdUnit:
    def test_it_starts_a_server_on_loopback(self, tmp_path: Path) -> None:
        """What is installed by three lines is reachable by nobody else."""
        text = (DEPLOY / "soardb.service").read_text("utf-8")
        (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
        program, verb, *rest = shlex.split(line)
        assert program.endswith("/soardb")
        assert verb == "serve"
        config = config_of(rest, tmp_path)
        assert config.is_loopback
        assert f"StateDirectory={config.directory.name}" in text

    def test_it_waits_longer_than_the_server_drains(self, tmp_path: Path) -> None:
        """Calls under way are not cut off by the unit."""
        text = (DEPLOY / "soardb.service").read_text("utf-8")
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
        assert int(seconds) > config_of(["data"], tmp_path).drain_s


class TestKubernetes:
    def test_ports_probes_and_paths_are_those_of_the_server(self, tmp_path: Path) -> None:
        """The manifest and the image speak of one server."""
        service, pod = manifests()["Service"], manifests()["StatefulSet"]["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        config = config_of([*dockerfile()["ENTRYPOINT"][2:], *container["args"]], tmp_path)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"grpc": config.port, "rest": config.rest_port}
        assert [p["port"] for p in service["spec"]["ports"]] == list(ports.values())
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert str(config.directory) in mounts
        assert str(config.keys_path.parent) in mounts
        assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
        assert pod["metadata"]["labels"] == service["spec"]["selector"]
        assert pod["spec"]["terminationGracePeriodSeconds"] > config.drain_s

    def test_one_process_owns_the_volume(self) -> None:
        """A second replica would find the directory locked and never be ready."""
        assert manifests()["StatefulSet"]["spec"]["replicas"] == 1
