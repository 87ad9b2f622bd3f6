"""Small /proc and /sys trees. The shape of every file is the kernel's (Documentation/filesystems/proc.rst,
accounting/psi.rst, admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst); the numbers are chosen for easy sums.
"""

from __future__ import annotations

from pathlib import Path

GIB = 2**30
KIB_PER_GIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below `root`, by relative path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def meminfo(total_gib: int, available_gib: int, **more_kib: int) -> str:
    """/proc/meminfo; keywords are further lines in kB."""
    lines = {
        "MemTotal": total_gib * KIB_PER_GIB,
        "MemFree": available_gib * KIB_PER_GIB // 2,
        "MemAvailable": available_gib * KIB_PER_GIB,
        "Buffers": 1024,
        "Cached": 2048,
        "Active(anon)": 4096,
        **more_kib,
    }
    return "".join(f"{name + ':':16}{number:>8} kB\n" for name, number in lines.items())


def cpuinfo(sockets: int, cores: int, threads_per_core: int, model: str) -> str:
    """/proc/cpuinfo of an x86 host; `cores` per socket. Sibling threads come last, as on real hosts."""
    blocks = []
    for thread in range(threads_per_core):
        for socket in range(sockets):
            for core in range(cores):
                number = (thread * sockets + socket) * cores + core
                blocks.append(
                    f"processor\t: {number}\nvendor_id\t: AuthenticAMD\nmodel name\t: {model}\n"
                    f"physical id\t: {socket}\nsiblings\t: {cores * threads_per_core}\ncore id\t\t: {core}\n"
                    f"cpu cores\t: {cores}\nflags\t\t: {'fpu vme de pse ' * 60}\n"
                )
    return "\n".join(blocks)


def dual_epyc(proc: Path, sys: Path) -> None:
    """Two sockets of 96 cores and 192 threads, 1,536 GiB in two nodes, 64 huge pages of 1 GiB, swap, PSI."""
    huge = "HugePages_Total:      64\nHugePages_Free:       48\nHugePages_Rsvd:        0\n"
    write(
        proc,
        {
            "meminfo": meminfo(
                1536, 1400, Shmem=16 * KIB_PER_GIB, SwapTotal=8 * KIB_PER_GIB, SwapFree=5 * KIB_PER_GIB
            )
            + huge
            + "Hugepagesize:    1048576 kB\nHugetlb:        67108864 kB\n",
            "cpuinfo": cpuinfo(2, 96, 2, "AMD EPYC 9654 96-Core Processor"),
            "vmstat": "nr_free_pages 1000\npgfault 77\noom_kill 3\n",
            "pressure/memory": (
                "some avg10=0.00 avg60=0.12 avg300=0.05 total=12500000\n"
                "full avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"
            ),
        },
    )
    nodes = {
        f"devices/system/node/node{node}/meminfo": (
            f"Node {node} MemTotal:       {768 * KIB_PER_GIB} kB\n"
            f"Node {node} MemFree:        {free * KIB_PER_GIB} kB\n"
            f"Node {node} HugePages_Total:    32\n"
        )
        for node, free in ((0, 10), (1, 700))
    }
    write(sys, {**nodes, "devices/system/node/possible": "0-1\n"})
