"""Ray nodes in namespaces of their own on one machine: addresses, disks and processes apart.

    kills.py, on_nodes.py -> [nodes.py] -> ip, unshare, nsenter, ray

Each node has a network namespace with an address on a bridge, a mount namespace in which the same
path is a folder of its own, and a process namespace whose first process takes all others with it
when it is killed, as a machine does. The first node is the head. The storage is one folder that all
see. What a node has on its disk is there when it starts again.

Takes root and Linux; why_not() says what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Around", "Node", "Nodes", "why_not"]

_GCS, _CLIENT = 6379, 10001  # ports; each node has its own address, so the same ones are free
_START_S = 60.0
_ASK = "ask: "
_ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # A node that says nothing for 5 s is given up; the machine's processors are few.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_enable_metrics_collection": "0",
    "OMP_NUM_THREADS": "1",
}


def why_not() -> str | None:
    """Why this machine cannot make such nodes; None where it can."""
    if sys.platform != "linux":
        return "namespaces are of Linux"
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool, path=_path()) is None:
            return f"{tool} is not installed"
    name = f"soardb-try-{os.getpid()}"
    made = _run("ip", "netns", "add", name, check=False)
    if made.returncode:
        return f"ip netns is not permitted: {made.stderr.strip()}"
    try:
        tried = _run("ip", "netns", "exec", name, "unshare", "-m", "-p", "-f", "true", check=False)
        return f"unshare is not permitted: {tried.stderr.strip()}" if tried.returncode else None
    finally:
        _run("ip", "netns", "del", name)


def environment_of(folder: Path) -> dict[str, str]:
    """What Ray's processes and drivers of a cluster of ours find in their environment.

    A token of this cluster's own, without which Ray answers nobody.
    """
    return _ENVIRONMENT | {
        "PATH": _path(),
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }


class Node:
    """One of the machines. number: from 1; the first is the head."""

    def __init__(self, number: int, subnet: str, bridge: str, folder: Path, memory: int) -> None:
        self.number, self.address = number, f"{subnet}.{number}"
        self._head, self._gateway = f"{subnet}.1", f"{subnet}.254"
        self._space = f"{bridge}-{number}"
        self._bridge, self._link = bridge, f"{bridge}v{number}"
        self._folder, self._memory = folder, memory
        self._init: subprocess.Popen[bytes] | None = None

    @property
    def disk(self) -> Path:
        """Its own folder, as the machine around sees it."""
        return self._folder / f"disk-{self.number}"

    def join(self) -> None:
        """Make its network: once."""
        _run("ip", "netns", "add", self._space)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self._space)
        _run("ip", "link", "set", self._link, "master", self._bridge, "up")
        _run("ip", "-n", self._space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _run("ip", "-n", self._space, "link", "set", "eth0", "up")
        _run("ip", "-n", self._space, "link", "set", "lo", "up")
        # It leads nowhere, but by it Ray finds the address of its own.
        _run("ip", "-n", self._space, "route", "add", "default", "via", self._gateway)

    def start(self) -> None:
        """Let Ray run there, in the foreground of a process namespace."""
        ray = [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"),
            *("--node-ip-address", self.address, "--num-cpus", "1"),
            *("--object-store-memory", str(self._memory)),
            "--disable-usage-stats",
        ]
        if self.number == 1:
            ray += ["--head", "--port", str(_GCS), "--ray-client-server-port", str(_CLIENT)]
            ray += ["--include-dashboard", "false"]
        else:
            ray += ["--address", f"{self._head}:{_GCS}"]
        lines = []
        for name in ("data", "ray"):  # the same path, another folder on each node
            (self.disk / name).mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind {self.disk / name} {self._folder / name}")
        script = " && ".join([*lines, 'exec "$@"'])
        log = (self._folder / f"node-{self.number}.log").open("ab")
        own = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child"]
        self._init = subprocess.Popen(
            ["ip", "netns", "exec", self._space, *own, "sh", "-c", script, "sh", *ray],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environment(),
            cwd=_ROOT,
        )
        log.close()

    def _environment(self) -> dict[str, str]:
        return os.environ | environment_of(self._folder)

    @property
    def is_running(self) -> bool:
        """Whether its processes are there."""
        return self._init is not None and self._init.poll() is None

    def kill(self) -> None:
        """SIGKILL to every process of the node at once, as when the power goes."""
        assert self._init is not None
        with contextlib.suppress(ProcessLookupError, RuntimeError):
            os.kill(self._first(), signal.SIGKILL)
        self._init.kill()
        self._init.wait(30.0)
        self._init = None

    def _first(self) -> int:
        """The first process of its process namespace, by the number that it has outside."""
        assert self._init is not None
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children")
        until = time.monotonic() + 10.0
        while not (found := children.read_text().split()):
            if not self.is_running or time.monotonic() > until:
                raise RuntimeError(f"node {self.number} did not start")
            time.sleep(0.01)
        return int(found[0])

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one within the node."""
        own = ["nsenter", "-t", str(self._first()), "-n", "-m", "-p", f"-w{_ROOT}"]
        return [*own, *command]

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Begin a command within the node; its standard output is a pipe."""
        environment = self._environment() | {"RAY_ADDRESS": f"{self._head}:{_GCS}"}
        return subprocess.Popen(
            self.inside(command), stdout=subprocess.PIPE, text=True, env=environment, **options
        )

    def kill_process(self, number: int) -> None:
        """SIGKILL to a process by the number that it has within the node."""
        _run(*self.inside(["kill", "-9", str(number)]), check=False)

    def leave(self) -> None:
        """Kill it and take its network away."""
        if self._init is not None:
            self.kill()
        _run("ip", "netns", "del", self._space, check=False)
        _run("ip", "link", "del", self._link, check=False)


class Nodes:
    """A Ray cluster of several nodes; a context manager.

    folder   of this cluster; storage: what all nodes see; data: a path that is another folder on
             each of them
    address  of the head for Ray Client, from outside
    """

    def __init__(self, count: int = 3, *, memory: int = 80 * 2**20) -> None:
        number = os.getpid() % 10_000
        self._bridge = f"sr{number}"
        self._subnet = f"10.213.{os.getpid() % 250}"
        self._count, self._memory = count, memory
        self._nodes: dict[int, Node] = {}
        self._watcher: subprocess.Popen[str] | None = None
        self._told: Any = None

    def __enter__(self) -> Nodes:
        # Whoever ends this program lets it take the nodes away.
        self._before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.folder = Path(tempfile.mkdtemp(prefix="sr"))  # short: Ray's sockets lie below it
        for name in ("storage", "data", "ray"):
            (self.folder / name).mkdir()
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        try:
            _run("ip", "link", "add", self._bridge, "type", "bridge")
            _run("ip", "addr", "add", f"{self._subnet}.254/24", "dev", self._bridge)
            _run("ip", "link", "set", self._bridge, "up")
            for _ in range(self._count):
                self.add()
                if len(self._nodes) == 1:
                    self.wait_for(1)
            self.wait_for(self._count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)
        for node in sorted(self, key=lambda node: -node.number):
            node.leave()
        if self._watcher is not None:
            self._watcher.communicate()  # it went with the head
        _run("ip", "link", "del", self._bridge, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    @property
    def storage(self) -> str:
        """See above."""
        return str(self.folder / "storage")

    @property
    def data(self) -> str:
        """See above."""
        return str(self.folder / "data")

    @property
    def environment(self) -> dict[str, str]:
        """For a driver outside."""
        return os.environ | environment_of(self.folder)

    @property
    def address(self) -> str:
        """See above."""
        return f"ray://{self._subnet}.1:{_CLIENT}"

    def add(self) -> Node:
        """One more node; not waited for."""
        number = 1 + max(self._nodes, default=0)
        node = Node(number, self._subnet, self._bridge, self.folder, self._memory)
        self._nodes[number] = node
        node.join()
        node.start()
        return node

    def wait_for(self, count: int) -> None:
        """Until Ray has so many nodes that are alive."""
        until, seen = time.monotonic() + _START_S, ""
        while time.monotonic() < until:
            if not self[1].is_running:
                break
            if self._watcher is None or self._watcher.poll() is not None:
                command = [sys.executable, "-P", "-c", _WATCH, f"{self._subnet}.1:{_GCS}"]
                with (self.folder / "node-1.log").open("ab") as log:
                    self._watcher = self[1].popen(command, stdin=subprocess.PIPE, stderr=log)
            assert self._watcher.stdin is not None
            assert self._watcher.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self._watcher.stdin.write("\n")
                self._watcher.stdin.flush()
                seen = self._watcher.stdout.readline().strip()
            if seen == str(count):
                return
            time.sleep(0.2)
        logs = "\n".join(self._log(node.number) for node in self)
        raise RuntimeError(f"expected {count} nodes, found {seen!r}:\n{logs}")

    def drive(self, command: Sequence[str]) -> tuple[Any, int]:
        """Run a program on the head that may ask by Around: what it told, and its exit code."""
        process = self[1].popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        self._told = None
        for line in process.stdout:
            if not line.startswith(_ASK):  # Ray says much of nodes that die
                continue
            method, *arguments = json.loads(line.removeprefix(_ASK))
            process.stdin.write(f"{json.dumps(getattr(self, f'_do_{method}')(*arguments))}\n")
            process.stdin.flush()
        return self._told, process.wait()

    def _do_tell(self, result: Any) -> None:
        self._told = result

    def _do_kill(self, address: str) -> None:
        self._at(address).kill()

    def _do_start(self, address: str) -> None:
        self._at(address).start()

    def _do_kill_process(self, address: str, number: int) -> None:
        self._at(address).kill_process(number)

    def _at(self, address: str) -> Node:
        return next(node for node in self if node.address == address)

    def _log(self, number: int) -> str:
        return (self.folder / f"node-{number}.log").read_text("utf-8", "replace")[-2000:]


class Around:
    """For a program that Nodes.drive() runs: what it cannot do from within. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def tell(self, result: Any) -> None:
        """Let Nodes.drive() return JSON values."""
        self._ask("tell", result)

    def kill(self, address: str) -> None:
        """SIGKILL to all processes of a node."""
        self._ask("kill", address)

    def start(self, address: str) -> None:
        """Let a node that was killed come back; not waited for."""
        self._ask("start", address)

    def kill_process(self, address: str, number: int) -> None:
        """SIGKILL to one process, by its number within its node."""
        self._ask("kill_process", address, number)

    def _ask(self, *what: Any) -> None:
        with self._lock:
            print(_ASK + json.dumps(what), flush=True)
            sys.stdin.readline()


# A driver on the head that says how many nodes are alive whenever it is asked.
_WATCH = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
for _ in sys.stdin:
    print(sum(node["Alive"] for node in ray.nodes()), flush=True)
"""


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": _path()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done
