"""A /proc of engines as the kernel and the engines write it, for whoever looks for processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporter.engines.discovery import Discovery, Instance
from exporter.engines.process import ProcessTable

R1 = "deepseek-ai/DeepSeek-R1"


class Host:
    """A /proc of processes as the kernel writes them (proc(5)); without sockets, as for another user's."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.table = ProcessTable(proc)
        self.discovery = Discovery(self.table, proc)

    def run(
        self,
        pid: int,
        *argv: str,
        parent: int = 1,
        start: int = 100,
        unit: str = "vllm.service",
        env: dict[str, str] | None = None,
        listens: dict[int, str] | None = None,
        padding: int = 0,
    ) -> None:
        entry = self.proc / str(pid)
        (entry / "net").mkdir(parents=True)
        comm = argv[0].rpartition("/")[2][:15]
        fields = ["S", str(parent), *["0"] * 17, str(start), *["0"] * 30]
        (entry / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
        (entry / "cmdline").write_bytes(b"\0".join(part.encode() for part in argv) + b"\0" * (1 + padding))
        (entry / "cgroup").write_text(f"0::/system.slice/{unit}\n")
        (entry / "status").write_text("RssAnon:\t100 kB\n")
        if env is not None:
            (entry / "environ").write_text("".join(f"{key}={value}\0" for key, value in env.items()))
        rows = ["  sl  local_address rem_address   st"]
        (entry / "fd").mkdir()
        for number, (port, address) in enumerate((listens or {}).items()):
            inode = pid * 100 + number
            rows.append(f"   0: {address}:{port:04X} 00000000:0000 0A 0:0 00:0 0 0 0 {inode}")
            (entry / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (entry / "net" / "tcp").write_text("\n".join(rows) + "\n")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def look(self) -> tuple[Instance, ...]:
        return self.discovery.look().instances

    def only(self) -> Instance:
        (one,) = self.look()
        return one


def vllm_of(host: Host, pid: int, ranks: int, *flags: str, model: str = R1, **more: object) -> None:
    """vLLM's server, its engine core at the next pid, and its workers after that."""
    host.run(pid, "/usr/bin/python3", "/usr/bin/vllm", "serve", model, "-tp", str(ranks), *flags, **more)  # type: ignore[arg-type]
    host.run(pid + 1, "VLLM::EngineCore", parent=pid, padding=200)
    for rank in range(ranks):
        host.run(pid + 2 + rank, f"VLLM::Worker_TP{rank}", parent=pid + 1, padding=200)
