"""Whole hosts with NVIDIA GPUs: a fake driver for the real pynvml, and trees of /proc and /sys.

What a device is and does idle is recorded: its sources stand in `fake_nvml/devices.py`. What of a host is
recorded beyond that, and what is constructed, stands at the host. Engines are constructed everywhere: their
command lines are real ones, what they hold is what their settings come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fake_nvml.control import FakeDriver
from fake_nvml.devices import MIB, FakeDevice, many

KIB_PER_GIB = 2**20
BOOT_SECONDS = 1_700_000_000


@dataclass
class NvidiaHost:
    """The roots of a host's file systems and its driver; `env` makes processes load that driver."""

    root: Path
    devices: list[FakeDevice]
    ram_kib: int
    available_kib: int
    driver_version: str = "590.48.01"
    driver: FakeDriver = field(init=False)

    def __post_init__(self) -> None:
        for device in self.devices:  # an exposition that is compared must hold still
            device.energy_advances = False
        self.driver = FakeDriver.create(self.root / "driver", self.devices)
        with self.driver.change() as state:
            state.driver_version = state.module_version = self.driver_version
        self.sys.mkdir()
        self.put("stat", f"cpu  0 0 0 0\nbtime {BOOT_SECONDS}\n")
        self.put("cpuinfo", "")
        self.available(self.available_kib)

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def env(self) -> Mapping[str, str]:
        return self.driver.env

    def put(self, name: str, text: str) -> None:
        """A file of /proc."""
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def available(self, kib: int) -> None:
        """What the kernel says is available of RAM."""
        self.put(
            "meminfo",
            f"MemTotal: {self.ram_kib:>15} kB\nMemFree: {kib // 2:>15} kB\nMemAvailable: {kib:>15} kB\n",
        )

    def runs(
        self,
        pid: int,
        command: str,
        *,
        parent: int = 1,
        rss_kib: int = 2 * KIB_PER_GIB,
        environment: str = "",
        title: str = "",
    ) -> None:
        """A process; its `command` is split at spaces, and `title` is what a worker calls itself."""
        name = (title or command.split()[0]).rpartition("/")[2][:15]
        fields = " ".join(["0"] * 17)
        self.put(f"{pid}/stat", f"{pid} ({name}) S {parent} {fields} {pid} 0 0\n")
        self.put(f"{pid}/cmdline", (title or command.replace(" ", "\0")) + "\0")
        self.put(f"{pid}/environ", environment + "\0" if environment else "")
        self.put(
            f"{pid}/status",
            f"Name:\t{name}\nRssAnon:\t{rss_kib} kB\nRssFile:\t0 kB\nRssShmem:\t0 kB\n",
        )

    def vllm(
        self, pid: int, arguments: str, holds: Sequence[tuple[FakeDevice, int]], environment: str = ""
    ) -> None:
        """A vLLM server, and a worker for each device, or slice, with the MiB that it holds there."""
        self.runs(pid, f"/usr/bin/python3 /usr/local/bin/vllm serve {arguments}", environment=environment)
        for rank, (device, mib) in enumerate(holds):
            worker = pid + 1 + rank
            self.runs(worker, "", parent=pid, title=f"VLLM::Worker_TP{rank}", environment=environment)
            device.occupy(worker, mib * MIB)
        self.driver.write()


def eight_h100(root: Path) -> NvidiaHost:
    """Recorded: one H100 idle. Constructed: that there are eight, busy with DeepSeek-V2.5 on all of them."""
    devices = many("h100", 8)
    for device in devices:
        device.set_power(431_870)
        device.utilization_gpu_percent, device.utilization_memory_percent = 100, 40
        device.temperature_gpu_celsius = 52
    host = NvidiaHost(root, devices, 2_113_453_512, 2_040_000_000)
    # 0.9 of what CUDA calls the total: 81,559 MiB without the 479 that the driver reserves.
    host.vllm(
        21_000,
        "deepseek-ai/DeepSeek-V2.5 -tp 8 --max-model-len 8192 --gpu-memory-utilization 0.9",
        [(device, 73_400) for device in devices],
    )
    return host


def four_rtx_4090(root: Path) -> NvidiaHost:
    """Recorded: what a GeForce board answers. Constructed: all else; a desktop on the first board, and
    DeepSeek-V2-Lite on two of them."""
    devices = many("rtx_4090", 4)
    devices[0].occupy(1_900, 310 * MIB, "graphics")
    host = NvidiaHost(root, devices, 131_072_000, 120_000_000, driver_version="595.71.05")
    host.runs(1_900, "/usr/lib/xorg/Xorg :0", rss_kib=90_000)
    host.vllm(
        22_000,
        "deepseek-ai/DeepSeek-V2-Lite -tp 2 --max-model-len 4096 --trust-remote-code",
        [(device, 21_900) for device in devices[2:]],
        "CUDA_VISIBLE_DEVICES=2,3",
    )
    return host


def h100_mig(root: Path) -> NvidiaHost:
    """Recorded: the capture of an H100 in MIG mode under load (nvidia_gpu_exporter, driver 590.48.01): four
    slices, of which three programs hold 11,091 MiB of the largest; 432 W, 52 °C, no utilization.
    Constructed: a distilled R1 on the slice of 20 GB, which is empty in the capture."""
    (device,) = many("h100_mig", 1)
    device.set_power(432_000)
    device.temperature_gpu_celsius = 52
    large, middle = device.migs[0], device.migs[1]
    for pid, mib in ((21_180, 2_296), (21_181, 1_272), (21_198, 7_484)):
        large.occupy(pid, mib * MIB)
    assert large.memory_used_bytes is not None
    large.memory_used_bytes = 11_091 * MIB
    host = NvidiaHost(root, [device], 196_000_000, 180_000_000)
    host.runs(21_180, "/root/tools/memhog")
    host.runs(21_181, "/root/tools/memhog")
    host.runs(21_198, "./gpu_burn")
    host.vllm(
        23_000,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-model-len 8192 --gpu-memory-utilization 0.9",
        [(middle, 18_050)],
        f"CUDA_VISIBLE_DEVICES={middle.uuid}",
    )
    return host


def a100_mig(root: Path) -> NvidiaHost:
    """Recorded: size and idle use of the slices. Constructed: that there are two such A100s, and engines on
    one slice of each: a distilled R1 of 7B under vLLM, and one of 8B in four bits under llama.cpp."""
    first, second = many("a100_mig", 2)
    host = NvidiaHost(root, [first, second], 1_056_000_000, 1_020_000_000)
    slice_of_first, slice_of_second = first.migs[1], second.migs[0]
    host.vllm(
        25_000,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-model-len 8192 --gpu-memory-utilization 0.9",
        [(slice_of_first, 17_950)],
        f"CUDA_VISIBLE_DEVICES={slice_of_first.uuid}",
    )
    host.runs(
        25_100,
        "/opt/llama.cpp/llama-server -m /models/DeepSeek-R1-Distill-Llama-8B-Q4_K_M.gguf -c 16384 -np 1"
        " -ngl 99",
        environment=f"CUDA_VISIBLE_DEVICES={slice_of_second.uuid}",
    )
    slice_of_second.occupy(25_100, 7_500 * MIB)
    host.driver.write()
    return host


def gb10(root: Path) -> NvidiaHost:
    """Recorded: a DGX Spark idle, its RAM, power and temperature (nvitop#208, driver 580.173.02), its memory
    not supported, processes and their memory told. Constructed: a distilled R1 that takes half of RAM."""
    (device,) = many("gb10", 1)
    device.set_power(11_170)
    device.temperature_gpu_celsius = 35
    held_mib = 62_200
    host = NvidiaHost(root, [device], 127_600_748, 118_566_368 - held_mib * 1024, driver_version="580.173.02")
    host.vllm(
        24_000,
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B --max-model-len 16384 --gpu-memory-utilization 0.5",
        [(device, held_mib)],
    )
    return host
