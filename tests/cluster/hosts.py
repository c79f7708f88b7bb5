"""Several hosts on one machine: three with Ray, and one with an S3 server and MLflow.

Each host is a process tree in network, process, mount and host-name namespaces of its own, with its
own ``/dev/shm`` and ``/tmp/ray``; virtual cables join them to a bridge in a namespace too,
so nothing of this can be seen, reached or left behind outside. Killing the first process of a host
takes everything on it away at once, as a power cut does. That needs root and iproute2; where
either is missing, ``ray.cluster_utils`` stands in, with nodes that share this host.
"""

import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

#: Starting Ray and MLflow on a busy machine of two cores takes a minute and more.
START_S = 300.0
#: The longest any one thing may take; a test that waits longer hangs.
WAIT_S = 1500.0

_BUCKET = "outspike"
_S3_PORT, _MLFLOW_PORT, _RAY_PORT = 9000, 5000, 6379
#: Where a token lies in the home folder Ray asks for it, so the lab has one of its own.
_TOKEN = secrets.token_hex(32)
_ATTEMPTS, _TOO_SLOW = 4, "The current node timed out during startup"
_RAY_FLAGS = ("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block")

#: First process of a host: mounts, a name that nothing resolves, then a life of collecting orphans.
_INIT = """
mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /tmp/ray && hostname "$1" || exit 1
echo ready
while :; do sleep 1000 & wait $!; done
"""


class Node(Protocol):
    """A Ray node that can be lost."""

    def processes(self) -> dict[int, str]:
        """Titles of its processes by their ids on this machine."""

    def kill(self) -> None:
        """Take it away at once, with everything that runs on it."""


@dataclass
class Lab:
    """A cluster of three one-CPU nodes beside an S3 server and an MLflow server."""

    log: Path
    """Folder for what the servers and nodes say."""
    s3: str
    """Address of the S3 server, where the hosts see it."""
    mlflow: str
    ray: str
    driver: Callable[[], list[str]]
    """Words before a command that is to run beside the head."""
    new_node: Callable[[], Node]
    workers: list[Node] = field(default_factory=list)
    """Nodes besides the head, which holds the drivers and is never killed."""

    @property
    def bucket(self) -> str:
        """An ``s3://`` address for everything the tests write."""
        return f"s3://{_BUCKET}"

    def start(self, *command: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start a command beside the head; what it says goes to a file."""
        with log.open("wb") as file:
            return subprocess.Popen(
                [*self.driver(), *command],
                env=environment(self.s3) | {"RAY_ADDRESS": self.ray},
                cwd=self.log,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command beside the head to its end."""
        return subprocess.run(
            [*self.driver(), *command],
            env=environment(self.s3) | {"RAY_ADDRESS": self.ray},
            cwd=self.log,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def ask(self, script: str, *arguments: str) -> Any:
        """The JSON that a Python script, run beside the head, prints as its last line."""
        done = self.run(sys.executable, "-c", script, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def lose(self, node: Node) -> None:
        """A worker's host goes dark."""
        node.kill()
        self.workers.remove(node)

    def refill(self) -> None:
        """Start new nodes in place of those that were lost."""
        while len(self.workers) < 2:
            self.workers.append(self.new_node())

    def wait_for(
        self, happened: Callable[[], Any], process: "subprocess.Popen[bytes]", log: Path
    ) -> Any:
        """Wait until something holds while a command that was started goes on."""
        until = time.monotonic() + WAIT_S
        while True:
            found = happened()
            if found:
                return found
            assert process.poll() is None, f"it ended too early:\n{log.read_text()}"
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def worker_with(self, title: str) -> Node | None:
        """A node besides the head that runs a process of this title, if any does."""
        for node in self.workers:
            if any(title in name for name in node.processes().values()):
                return node
        return None


@contextmanager
def laboratory(log: Path) -> Iterator[Lab]:
    """The lab, of namespaces where they can be had; all of it is gone after the block."""
    with ExitStack() as stack:
        made = _on_hosts if can_have_hosts() else _on_one_host
        lab = made(log, stack)
        stack.callback(lambda: [node.kill() for node in lab.workers])
        lab.refill()
        lab.ask(_MAKE_BUCKET, _BUCKET)
        yield lab


def can_have_hosts() -> bool:
    """Whether this process may make namespaces with networks."""
    tools = ("ip", "unshare", "nsenter", "setpriv", "mount")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)):
        return False
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "ip", "link"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


def environment(s3: str) -> dict[str, str]:
    """Of every process in the lab: this checkout, and the way to its S3 server.

    ``GLOO_SOCKET_IFNAME`` is not among it: training has to find the interface by itself.
    """
    foreign = ("AWS_", "RAY_", "MLFLOW_", "GLOO_", "PYTEST_", "PYTHON")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {name: value for name, value in own.items() if not name.lower().endswith("_proxy")}
    platform = Path(__file__).resolve().parents[2] / "platform"
    return own | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(platform),
        "OMP_NUM_THREADS": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": s3,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "RAY_worker_niceness": "0",  # on one machine, idle priority may mean never
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
    }


_MAKE_BUCKET = """
import sys, boto3
boto3.client("s3").create_bucket(Bucket=sys.argv[1])
print("null")
"""


# ---------------------------------------------------------------------------- hosts of their own


class _Switch:
    """A bridge in a network namespace of its own, which goes away with its holder."""

    def __init__(self) -> None:
        self._holder = _hold("--net", "--", "sh", "-c", "echo ready; exec sleep infinity")
        self._numbers = itertools.count(1)
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("link", "set", "bridge", "up")

    def plug_in(self, pid: int) -> str:
        """Join the network of a process; the address it has from then on."""
        number = next(self._numbers)
        cable, address = f"host{number}", f"10.77.0.{number}"
        peer = ("peer", "name", "eth0", "netns", str(pid))
        self._ip("link", "add", cable, "type", "veth", *peer)
        self._ip("link", "set", cable, "master", "bridge", "up")
        inside = ["nsenter", "--target", str(pid), "--net", "ip"]
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            subprocess.run([*inside, *words], check=True)
        return address

    def remove(self) -> None:
        _end(self._holder)

    def _ip(self, *words: str) -> None:
        # the holder is the process itself: without a process namespace nothing is forked
        into = ["nsenter", "--target", str(self._holder.pid), "--net"]
        subprocess.run([*into, "ip", *words], check=True)


class _Host:
    """A machine of its own, as far as anything that runs on it can tell."""

    def __init__(self, name: str, switch: _Switch) -> None:
        Path("/tmp/ray").mkdir(exist_ok=True)  # to mount over; what lies there stays unseen
        apart = ("--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc")
        self._holder = _hold(*apart, "--", "sh", "-c", _INIT, "sh", name)
        task = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self._init = int(task.read_text().split()[0])
        self._space = os.readlink(f"/proc/{self._init}/ns/pid")
        self._started: list[subprocess.Popen[bytes]] = []
        self.address = switch.plug_in(self._init)

    def start(self, command: Sequence[str], settings: dict[str, str], log: Path) -> "_Started":
        """Start a server on this host; it ends with the host."""
        started = _start([*self.words(), *command], settings, log)
        self._started.append(started.process)
        return started

    def words(self) -> list[str]:
        """What goes before a command that is to run on this host."""
        spaces = ("--net", "--pid", "--mount", "--uts")
        into = ["nsenter", "--target", str(self._init), *spaces, "--"]
        return [*into, "setpriv", "--pdeathsig", "KILL", "--"]  # nsenter's child ends with it

    def processes(self) -> dict[int, str]:
        found = {}
        for pid in _pids():
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == self._space:
                    found[pid] = _title(pid)
            except OSError:  # it has ended in the meantime
                continue
        return found

    def kill(self) -> None:
        if self._holder.poll() is None:
            os.kill(self._init, signal.SIGKILL)
        for process in (*self._started, self._holder):
            process.wait(60)


def _on_hosts(log: Path, stack: ExitStack) -> Lab:
    switch = _Switch()
    stack.callback(switch.remove)
    numbers = itertools.count(1)

    def host(name: str) -> _Host:
        made = _Host(name, switch)
        stack.callback(made.kill)
        return made

    def ray_on(name: str, *words: str) -> _Host:
        """A host with Ray; another one in its place where Ray found its own start too slow."""
        for _ in range(_ATTEMPTS):
            made = host(name)
            at = f"--node-ip-address={made.address}"
            command = ("ray", "start", *words, at, *_RAY_FLAGS)
            node = made.start(command, settings, log / f"{name}.log")
            if _ray_runs(node):
                return made
            made.kill()
        raise AssertionError(node.log.read_text())

    def new_node() -> _Host:
        return ray_on(f"node{next(numbers)}", f"--address={head.address}:{_RAY_PORT}")

    servers = host("servers")
    s3 = f"http://{servers.address}:{_S3_PORT}"
    mlflow = f"http://{servers.address}:{_MLFLOW_PORT}"
    settings = environment(s3)
    started = {
        f"{s3}/moto-api/": servers.start(_s3_server("0.0.0.0", _S3_PORT), settings, log / "s3.log"),
        f"{mlflow}/health": servers.start(
            _mlflow_server(log, "0.0.0.0", _MLFLOW_PORT), settings, log / "mlflow.log"
        ),
    }
    head = ray_on("head", "--head", f"--port={_RAY_PORT}", "--include-dashboard=false")
    for url, server in started.items():
        _until_served(url, server, via=head.words())
    return Lab(
        log=log,
        s3=s3,
        mlflow=mlflow,
        ray=f"{head.address}:{_RAY_PORT}",
        driver=head.words,
        new_node=new_node,
    )


def _hold(*words: str) -> "subprocess.Popen[bytes]":
    """Start the process that keeps a namespace, and wait until it says that it is ready.

    It ends with this process, however this one ends.
    """
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what it says of being killed
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"ready\n", "a namespace could not be made"
    return holder


def _end(holder: "subprocess.Popen[bytes]") -> None:
    holder.kill()
    holder.wait(60)


# --------------------------------------------------------------------------- one host for all


class _SharedNode:
    """A node of ``ray.cluster_utils``, beside others on this host."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self._cluster, self._node = cluster, node

    def processes(self) -> dict[int, str]:
        anchors = {
            info.process.pid for found in self._node.all_processes.values() for info in found
        }
        return {pid: _title(pid) for pid in _pids() if anchors & set(_ancestors(pid))}

    def kill(self) -> None:
        self._cluster.remove_node(self._node, allow_graceful=False)


def _on_one_host(log: Path, stack: ExitStack) -> Lab:
    from ray.cluster_utils import Cluster

    ports = {name: _free_port() for name in ("s3", "mlflow")}
    s3, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in ("s3", "mlflow"))
    commands = {
        "s3": _s3_server("127.0.0.1", ports["s3"]),
        "mlflow": _mlflow_server(log, "127.0.0.1", ports["mlflow"]),
    }
    started = {}
    for name, command in commands.items():
        started[name] = _start(command, environment(s3), log / f"{name}.log", apart=True)
        stack.callback(started[name].process.wait, 60)
        stack.callback(os.killpg, started[name].process.pid, signal.SIGTERM)
    before = dict(os.environ)
    stack.callback(lambda: (os.environ.clear(), os.environ.update(before)))
    for name in set(os.environ) - set(environment(s3)):
        del os.environ[name]
    os.environ.update(environment(s3))  # nodes take theirs from here
    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    stack.callback(cluster.shutdown)
    _until_served(f"{s3}/moto-api/", started["s3"])
    _until_served(f"{mlflow}/health", started["mlflow"])
    return Lab(
        log=log,
        s3=s3,
        mlflow=mlflow,
        ray=str(cluster.address),
        driver=lambda: [],
        new_node=lambda: _SharedNode(cluster, cluster.add_node(**size)),
    )


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        except OSError:
            return
        pid = int(after_name.split()[1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------------------------- servers


def _s3_server(address: str, port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]


def _mlflow_server(folder: Path, address: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", address, "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", f"s3://{_BUCKET}/mlflow"),
    ]


_GET = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)"


@dataclass(frozen=True)
class _Started:
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for a server to serve; its own words tell why it does not."""
        until = time.monotonic() + START_S
        while True:
            has_ended = self.process.poll() is not None  # asked first: its last words count
            if happened():
                return
            assert not has_ended, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)


def _start(
    command: Sequence[str], settings: dict[str, str], log: Path, *, apart: bool = False
) -> _Started:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=settings,
            cwd=log.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=apart,
        )
    return _Started(process, log)


def _until_served(url: str, server: _Started, via: Sequence[str] = ()) -> None:
    def answers() -> bool:
        asked = [*via, sys.executable, "-c", _GET, url]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    server.wait_until(answers)


def _ray_runs(node: _Started) -> bool:
    """Whether a node was registered with the head; Ray allows 30 s for it, and then gives up."""

    def is_decided() -> bool:
        return "Ray runtime started" in node.log.read_text() or node.process.poll() is not None

    node.wait_until(is_decided)
    said = node.log.read_text()
    assert "Ray runtime started" in said or _TOO_SLOW in said, said
    return "Ray runtime started" in said


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""
