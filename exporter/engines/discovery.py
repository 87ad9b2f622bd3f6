"""Which engines run here: server processes with their workers, what their launches say, where they answer.

A process is judged by its own program (see launch/), a worker by walking up to the server that started it.
Facts of the process trees: vLLM 0.33 v1/executor, SGLang 0.5.23 managers/, Ollama llm/llama_server.go,
text-generation-inference launcher/src/main.rs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.engines.process import Process, ProcessTable
from exporter.engines.sockets import Door, Sockets

if TYPE_CHECKING:
    from exporter.engines.launch import Launch

DEFAULT_PORTS = {
    "vllm": 8000,
    "sglang": 30000,
    "llama.cpp": 8080,
    "llama-cpp-python": 8000,
    "ollama": 11434,
    "ktransformers": 30000,
    "lmdeploy": 23333,
    "tensorrt-llm": 8000,
    "tgi": 3000,
    "transformers": 8000,
}
"""Where an engine listens when its launch does not say (each engine's own command line reference)."""

_ADOPTERS = frozenset(
    {
        "systemd",
        "init",
        "tini",
        "dumb-init",
        "docker-init",
        "catatonit",
        "s6-svscan",
        "supervisord",
        "runsvdir",
    }
)
"""Who gets the children of a process that died, beside pid 1 (prctl(2), PR_SET_CHILD_SUBREAPER)."""
_VISIBLE = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
)
"""Which devices a runtime shows to its program; HIP heeds CUDA's too (rocm.docs.amd.com, GPU isolation), and
CANN's is how vllm-ascend is placed (docs.vllm.ai/projects/ascend, Multi-Node)."""
_VISIBLE_BELOW = ("ROCR_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES")
"""Which devices a lower layer shows, by index or uuid, so that the runtime counts what is left: ROCm's to
HIP, and Huawei's container runtime to a container."""
_DEEPEST = 64
_CACHES = (("HF_HUB_CACHE", ""), ("HF_HOME", "/hub"), ("XDG_CACHE_HOME", "/huggingface/hub"))
_HOME_CACHE = ("HOME", "/.cache/huggingface/hub")
"""Where models of a hub are kept, by the first variable that is set (huggingface_hub constants.py)."""
_LONGEST_PATH = 4096

Key = tuple[int, int]
"""(pid, start_ticks) of a process"""


@dataclass(frozen=True, slots=True)
class Instance:
    """One engine that serves one model, or what is left of it.

    ``root`` is the process whose launch this is; of Ollama it is the model's runner, and ``server`` the
    process that answers for it. ``door_problem`` says why there is no door. ``environment_read`` and
    ``folder`` (the root's working folder) need permission; ``namespace`` is where its files are seen from:
    "" for this process's own root. ``model_cache``: the folder that holds what it fetched from a hub.
    """

    engine: str
    launch: Launch
    root: Process
    server: Process
    pids: frozenset[int]
    ports: frozenset[int] | None
    door: Door | None
    door_problem: str = ""
    orphaned: bool = False
    visible_devices: tuple[str, ...] | None = None
    environment_read: bool = False
    folder: str | None = None
    namespace: str | None = None
    model_cache: str | None = None

    @property
    def key(self) -> Key:
        return self.root.pid, self.root.start_ticks

    @property
    def unit(self) -> str | None:
        """The systemd unit or container scope, the innermost one."""
        return min(self.root.units, key=lambda name: (name.endswith(".service"), name), default=None)


@dataclass(frozen=True, slots=True)
class _Read:
    process: Process
    launch: Launch
    environment_read: bool
    visible: tuple[str, ...] | None
    model_cache: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at the process table gave. ``roles`` are those of the processes that are candidates."""

    processes: Mapping[int, Process]
    instances: tuple[Instance, ...]
    roles: Mapping[int, str]


class Discovery:
    """Looks at the process table; what was read of a process stands until the process changes."""

    def __init__(self, table: ProcessTable, proc: Path) -> None:
        self._table = table
        self._proc = proc
        self._sockets = Sockets(proc)
        self._launches: dict[Key, _Read] = {}
        self._placed: dict[Key, Instance] = {}

    def look(self, *, thorough: bool = True) -> Found:
        """One look. Blocks; raises OSError when the process table cannot be read."""
        processes = self._table.scan(thorough=thorough)
        launches = {
            pid: read
            for pid, process in processes.items()
            if process.candidate and (read := self._launch(process))
        }
        self._launches = {(pid, read.process.start_ticks): read for pid, read in launches.items()}
        instances = tuple(
            sorted(
                (self._place(one) for one in _Trees(processes, launches).instances()),
                key=lambda one: (one.root.start_ticks, one.root.pid),
            )
        )
        self._placed = {one.key: one for one in instances}
        return Found(processes, instances, {pid: str(read.launch.role) for pid, read in launches.items()})

    def _launch(self, process: Process) -> _Read | None:
        known = self._launches.get((process.pid, process.start_ticks))
        if known is not None and known.process is process:
            return known
        # The readers of all engines are worth loading once something looks like an engine.
        from exporter.engines.launch import LaunchError, Role, read_launch

        arguments = self._table.arguments(process)
        if not arguments:
            return None
        environment: Mapping[str, str] | None = None
        visible: tuple[str, ...] | None = None
        try:
            launch = read_launch(arguments)
            if launch.role is Role.SERVER or (launch.role is Role.WORKER and launch.engine is not None):
                environment = self._table.environment(process)
                launch = read_launch(arguments, environment)
                visible = _visible(environment or {})
        except LaunchError:
            return None
        return _Read(process, launch, bool(environment), visible, _model_cache(environment or {}))

    def _place(self, one: _Tree) -> Instance:
        """The tree as an instance, with the door it had or, while it has none, another look for one."""
        read = one.read
        before = self._placed.get((read.process.pid, read.process.start_ticks))
        engine = read.launch.engine or ""
        ports: frozenset[int] | None
        namespace: str | None
        if before is not None and before.door is not None and before.launch is read.launch:
            ports, door, problem = before.ports, before.door, before.door_problem
        elif one.orphaned:
            ports, door, problem = frozenset(), None, "its server is gone"
        else:
            ports, door, problem = self._door(engine, one)
        if before is not None and before.namespace is not None:
            namespace, folder = before.namespace, before.folder
        else:
            namespace, folder = self._files(read.process.pid)
        return Instance(
            engine=engine,
            launch=read.launch,
            root=read.process,
            server=one.server.process,
            pids=one.pids,
            ports=ports,
            door=door,
            door_problem=problem,
            orphaned=one.orphaned,
            visible_devices=read.visible if read.visible is not None else one.server.visible,
            environment_read=read.environment_read,
            folder=folder,
            namespace=namespace,
            model_cache=read.model_cache if read.launch.model is not None else None,
        )

    def _door(self, engine: str, one: _Tree) -> tuple[frozenset[int] | None, Door | None, str]:
        server = one.server
        root = server.process.pid
        listening = self._sockets.listening(root, one.server_pids)
        said = server.launch.port
        if listening.listeners is None:
            return None, None, "its sockets cannot be read"
        ports = frozenset(listener.port for listener in listening.listeners) if listening.certain else None
        usual = DEFAULT_PORTS.get(engine)
        wanted = said if said is not None else usual
        for port in (wanted, *self._only(root, said)):
            if port is not None and (door := self._sockets.door(root, listening, port)) is not None:
                return ports, door, ""
        return ports, None, "it does not listen yet" if wanted is not None else "its port is not known"

    def _only(self, root: int, said: int | None) -> Iterator[int]:
        """Where the launch names no port: the one on which the server itself listens, if it is one."""
        if said is not None:
            return
        own = self._sockets.listening(root, (root,))
        if own.certain and own.listeners is not None and len({one.port for one in own.listeners}) == 1:
            yield own.listeners[0].port

    def _files(self, pid: int) -> tuple[str | None, str | None]:
        """(root of its files as seen from here, its working folder); None what may not be asked."""
        folder = self._proc / str(pid)
        try:
            inside = (folder / "cwd").readlink()
            same = (folder / "ns" / "mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
            same = same and (folder / "root").readlink() == Path("/")
        except OSError:
            return None, None
        return ("" if same else str(folder / "root")), str(inside)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A server with everything below it, or an Ollama runner with its server, or an orphaned worker."""

    read: _Read
    server: _Read
    pids: frozenset[int]
    server_pids: frozenset[int]
    orphaned: bool = False


class _Trees:
    """Sorts the processes of one look into trees."""

    def __init__(self, processes: Mapping[int, Process], launches: Mapping[int, _Read]) -> None:
        self._processes = processes
        self._launches = launches
        self._children: dict[int, list[int]] = {}
        if launches:
            for process in processes.values():
                self._children.setdefault(process.parent, []).append(process.pid)

    def instances(self) -> Iterator[_Tree]:
        servers = {pid: read for pid, read in self._launches.items() if self._is_root(pid, read)}
        ray = list(self._ray_workers(servers))
        for pids in self._together(servers):
            root = servers[pids[0]]
            below = frozenset(pid for one in pids for pid in self._below(one))
            if root.launch.engine == "ollama":
                yield from self._runners(root, below)
                continue
            adopted = frozenset(
                pid for worker in ray if self._serves(worker, pids[0], servers) for pid in self._below(worker)
            )
            yield _Tree(root, root, below | adopted, below)
        yield from self._orphans(servers, set(ray))

    def _is_root(self, pid: int, read: _Read) -> bool:
        """A server below no other server of this engine; what a router starts stands for itself."""
        if read.launch.role != "server" or not read.launch.engine:
            return False
        return not any(
            (above := self._launches.get(parent)) is not None
            and above.launch.role == "server"
            and above.launch.engine == read.launch.engine
            and not _routes(above.launch)
            for parent in self._ancestors(pid)
        ) and not (_routes(read.launch) and self._has_served_children(pid, read))

    def _has_served_children(self, pid: int, read: _Read) -> bool:
        return any(
            (child := self._launches.get(one)) is not None
            and child.launch.role == "server"
            and child.launch.engine == read.launch.engine
            for one in self._below(pid) - {pid}
        )

    def _together(self, servers: Mapping[int, _Read]) -> Iterable[tuple[int, ...]]:
        """Servers that one launcher (mpirun) started with the same words are one deployment."""
        groups: dict[object, list[int]] = {}
        for pid, read in servers.items():
            launcher = next((one for one in self._ancestors(pid) if self._role(one) == "launcher"), None)
            groups.setdefault(pid if launcher is None else (launcher, read.launch), []).append(pid)
        for pids in groups.values():
            yield tuple(sorted(pids, key=lambda pid: (servers[pid].process.start_ticks, pid)))

    def _runners(self, server: _Read, below: frozenset[int]) -> Iterator[_Tree]:
        """Every model that an Ollama server has loaded is a deployment of its own."""
        for pid in below:
            read = self._launches.get(pid)
            if read is None or read.launch.role != "worker" or read.launch.engine != "ollama":
                continue
            if any(self._role(one) == "worker" for one in self._ancestors(pid) if one in below):
                continue
            yield _Tree(read, server, self._below(pid), frozenset({server.process.pid}))

    def _ray_workers(self, servers: Mapping[int, _Read]) -> Iterator[int]:
        """Workers that Ray's own daemon started, and not the server that they belong to."""
        for pid, read in self._launches.items():
            if read.launch.role != "worker" or any(one in servers for one in self._ancestors(pid)):
                continue
            if any("raylet" in self._processes[one].programs for one in self._ancestors(pid)):
                yield pid

    def _serves(self, worker: int, server: int, servers: Mapping[int, _Read]) -> bool:
        """Whether a Ray worker can only be this server's."""
        engine = self._launches[worker].launch.engine
        fitting = [pid for pid, read in servers.items() if engine in (None, read.launch.engine)]
        near = [pid for pid in fitting if self._processes[pid].units == self._processes[worker].units]
        return (near or fitting) == [server]

    def _orphans(self, servers: Mapping[int, _Read], ray: set[int]) -> Iterator[_Tree]:
        """Workers whose server is gone, those of one engine in one unit together."""
        groups: dict[object, list[int]] = {}
        for pid, read in self._launches.items():
            if read.launch.role != "worker" or not read.launch.engine or pid in ray:
                continue
            above = list(self._ancestors(pid))
            if any(one in servers or self._role(one) in ("worker", "server") for one in above):
                continue
            if self._is_abandoned(pid):
                groups.setdefault((read.launch.engine, read.process.units), []).append(pid)
        for pids in groups.values():
            first = self._launches[min(pids, key=lambda pid: (self._processes[pid].start_ticks, pid))]
            below = frozenset(pid for one in pids for pid in self._below(one))
            yield _Tree(first, first, below, below, orphaned=True)

    def _is_abandoned(self, pid: int) -> bool:
        parent = self._processes[pid].parent
        above = self._processes.get(parent)
        return parent <= 1 or above is None or not _ADOPTERS.isdisjoint(above.programs)

    def _role(self, pid: int) -> str | None:
        read = self._launches.get(pid)
        return str(read.launch.role) if read is not None else None

    def _ancestors(self, pid: int) -> Iterator[int]:
        seen = {pid}
        parent = self._processes[pid].parent
        while parent in self._processes and parent not in seen and len(seen) < _DEEPEST:
            yield parent
            seen.add(parent)
            parent = self._processes[parent].parent

    def _below(self, root: int) -> frozenset[int]:
        found = {root}
        waiting = [root]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return frozenset(found)


def _routes(launch: Launch) -> bool:
    """Whether a llama-server was started without a model: it starts others that have one."""
    return launch.engine == "llama.cpp" and launch.model is None


def _visible(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The devices that a process may see, as the driver counts them; None when nothing limits them."""
    listed = (_listed(environment.get(variable)) for variable in _VISIBLE)
    found = next((parts for parts in listed if parts is not None), None)
    lower = (_listed(environment.get(variable)) for variable in _VISIBLE_BELOW)
    below = next((parts for parts in lower if parts is not None), None)
    if found is None or below is None:
        return found or below
    return tuple(below[int(part)] for part in found if part.isdigit() and int(part) < len(below))


def _model_cache(environment: Mapping[str, str]) -> str | None:
    """The cache of the hub; None where no variable tells, or what it says is no whole path."""
    for variable, below in (*_CACHES, _HOME_CACHE):
        said = environment.get(variable, "").rstrip("/")
        if said:
            return said + below if said.startswith("/") and len(said) < _LONGEST_PATH else None
    return None


def _listed(said: str | None) -> tuple[str, ...] | None:
    if said is None or said.strip() in ("", "all", "void", "none"):
        return None
    parts = tuple(part.strip() for part in said.split(",") if part.strip())
    return parts if len(parts) <= 1024 and all(part.isascii() and len(part) <= 64 for part in parts) else None
