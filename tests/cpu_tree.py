"""Hosts that serve from RAM as trees of /proc and /sys: CPU only, and a GPU with the experts in RAM.

Recorded, and where: the shape of every file is the kernel's (Documentation/filesystems/proc.rst,
admin-guide/cgroup-v2.rst, ABI/testing/sysfs-devices-edac; SMBIOS 3.7); names of processors as /proc/cpuinfo
prints them; the size of R1's Q4_K_M file (observed.jsonl, size-oll-671b); the RTX 4090 (tests/fake_nvml).
Constructed: what is free, held and charged, modules and their speeds, pressure, process ids. No recording of
a whole host was to be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hardware.proc_tree import GIB, cpuinfo, write
from smbios import memory_module, table

MIB = 2**20
KIB_PER_GIB = 2**20
MAPPED = 376 * GIB + 700 * MIB
"""R1's Q4_K_M, mapped whole"""


@dataclass(frozen=True)
class CpuHost:
    """One host, and the process that serves on it."""

    root: Path
    pid: int

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    def put(self, path: str, text: str) -> None:
        write(self.root, {path: text})

    def status(self, **kib: int) -> None:
        """Change rows of the process's status."""
        path = self.proc / str(self.pid) / "status"
        rows = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
        rows |= {name: f"{size:>10} kB" for name, size in kib.items()}
        path.write_text("".join(f"{name}:\t{text}\n" for name, text in rows.items()))


def kib(size: int) -> int:
    return size // 1024


def dual_epyc_cpu_only(root: Path) -> CpuHost:
    """Two EPYC 9554, 768 GiB of DDR5-4800 in 24 channels, two nodes; llama-server with MemoryMax=480G.

    The table of modules can be read, error detection is not loaded. 16 GiB of huge pages are set aside.
    """
    memory = {
        "MemTotal": 755 * KIB_PER_GIB,
        "MemFree": 300 * KIB_PER_GIB,
        "MemAvailable": 700 * KIB_PER_GIB,
        "Shmem": KIB_PER_GIB,
        "SwapTotal": 16 * KIB_PER_GIB,
        "SwapFree": 16 * KIB_PER_GIB,
    }
    argv = (
        "/opt/llama.cpp/bin/llama-server -m /models/DeepSeek-R1-Q4_K_M-00001-of-00009.gguf "
        "-c 65536 -np 4 --no-repack --cache-ram 0 --numa distribute --metrics --port 8080"
    )
    host = _host(root, memory, "AMD EPYC 9554 64-Core Processor", 2, 64, nodes=2)
    huge = "HugePages_Total:      16\nHugePages_Free:       16\nHugepagesize:    1048576 kB\n"
    host.put("proc/meminfo", (host.proc / "meminfo").read_text() + huge)
    path = host.sys / "firmware/dmi/tables/DMI"
    path.parent.mkdir(parents=True)
    path.write_bytes(table(*[memory_module(5600, configured=4800, extended_mib=32_768)] * 24))
    _process(host, "llama-server", argv, anonymous=4880 * MIB, file=MAPPED, nodes="0-1", policy="default")
    _group(
        host,
        "system.slice/llama-r1.service",
        limit=480 * GIB,
        current=386 * GIB,
        anon=4880 * MIB,
        mapped=MAPPED,
    )
    return host


def hybrid_4090(root: Path) -> CpuHost:
    """One EPYC 9374F with 8 of 12 channels filled, 512 GiB, an RTX 4090; experts in RAM, locked.

    Only error detection (EDAC) tells of the modules: two ranks each, channels 0 to 7.
    """
    memory = {
        "MemTotal": 503 * KIB_PER_GIB,
        "MemFree": 80 * KIB_PER_GIB,
        "MemAvailable": 120 * KIB_PER_GIB,
        "Shmem": KIB_PER_GIB,
        "SwapTotal": 16 * KIB_PER_GIB,
        "SwapFree": 15 * KIB_PER_GIB,
    }
    argv = (
        "/opt/llama.cpp/bin/llama-server -m /models/DeepSeek-R1-Q4_K_M-00001-of-00009.gguf "
        "-ngl 99 -ot exps=CPU -c 16384 -np 1 --mlock --metrics --port 8080"
    )
    host = _host(root, memory, "AMD EPYC 9374F 32-Core Processor", 1, 32, nodes=1)
    for rank in (0, 1):
        for channel in range(8):
            folder = f"sys/devices/system/edac/mc/mc0/rank{rank * 8 + channel}"
            host.put(f"{folder}/dimm_location", f"csrow {rank} channel {channel} \n")
            host.put(f"{folder}/size", "32768\n")
            host.put(f"{folder}/dimm_mem_type", "Registered-DDR5\n")
    file = 367 * GIB + 400 * MIB
    _process(host, "llama-server", argv, anonymous=1300 * MIB, file=file, nodes="0", policy="default")
    host.status(VmLck=kib(file), VmSwap=kib(48 * MIB))
    _group(host, "system.slice/llama-r1.service", limit=None, current=370 * GIB, anon=1300 * MIB, mapped=file)
    return host


def bind_to_node(host: CpuHost, node: int) -> None:
    """As `numactl --membind` leaves it."""
    code = f"file=/opt/llama.cpp/bin/llama-server mapped=12 N{node}=12 kernelpagesize_kB=4"
    host.put(f"proc/{host.pid}/numa_maps", f"5581d0c00000 bind:{node} {code}\n")


def _host(
    root: Path, memory: dict[str, int], processor: str, sockets: int, cores: int, *, nodes: int
) -> CpuHost:
    host = CpuHost(root, 2400)
    host.put("proc/meminfo", "".join(f"{name + ':':16}{size:>9} kB\n" for name, size in memory.items()))
    host.put("proc/cpuinfo", cpuinfo(sockets, cores, 2, processor).replace("fpu", "fpu avx2 avx512f", 1))
    host.put("proc/vmstat", "pgfault 77\noom_kill 0\n")
    host.put(
        "proc/pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=125000\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=25000\n",
    )
    cached = (memory["MemAvailable"] - memory["MemFree"]) // nodes
    for node in range(nodes):
        rows = {
            "MemTotal": memory["MemTotal"] // nodes,
            "MemFree": memory["MemFree"] // nodes,
            "Active(file)": cached // 2,
            "Inactive(file)": cached // 2,
            "SReclaimable": 2048,
        }
        host.put(
            f"sys/devices/system/node/node{node}/meminfo",
            "".join(f"Node {node} {name + ':':16}{size:>9} kB\n" for name, size in rows.items()),
        )
    return host


def _process(
    host: CpuHost, program: str, argv: str, *, anonymous: int, file: int, nodes: str, policy: str
) -> None:
    folder = f"proc/{host.pid}"
    fields = f"{host.pid} ({program}) S 1 {'0 ' * 7}1234 {'0 ' * 9}77000 0 0\n"
    host.put(f"{folder}/stat", fields)
    host.put(f"{folder}/cmdline", "\0".join(argv.split()) + "\0")
    rows = {
        "VmHWM": anonymous + file,
        "VmLck": 0,
        "RssAnon": anonymous,
        "RssFile": file,
        "RssShmem": 0,
        "VmSwap": 0,
        "HugetlbPages": 0,
    }
    text = "".join(f"{name}:\t{kib(size):>10} kB\n" for name, size in rows.items())
    host.put(f"{folder}/status", f"Name:\t{program}\n{text}Mems_allowed_list:\t{nodes}\n")
    host.put(f"{folder}/numa_maps", f"5581d0c00000 {policy} file=/opt/llama.cpp/bin/{program} mapped=12\n")


def _group(host: CpuHost, path: str, *, limit: int | None, current: int, anon: int, mapped: int) -> None:
    """A unit of the unified hierarchy, and the process in it."""
    host.put(f"proc/{host.pid}/cgroup", f"0::/{path}\n")
    host.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
    folder = f"sys/fs/cgroup/{path}"
    host.put(f"{folder}/memory.max", "max\n" if limit is None else f"{limit}\n")
    host.put(f"{folder}/memory.high", "max\n")
    host.put(f"{folder}/memory.current", f"{current}\n")
    cache = current - anon - GIB
    host.put(
        f"{folder}/memory.stat",
        f"anon {anon}\nfile {cache}\nkernel {GIB}\nfile_mapped {mapped}\n"
        f"inactive_file {cache // 2}\nactive_file {cache - cache // 2}\nunevictable 0\n",
    )
    host.put(
        f"{folder}/memory.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=90000\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=80000\n",
    )
    host.put(f"{folder}/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n")
