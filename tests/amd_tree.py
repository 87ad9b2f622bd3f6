"""Hosts with AMD GPUs as trees of /sys and /proc.

Recorded, and where: the shape of every file is the kernel's (Documentation/gpu/amdgpu, kfd_topology.c,
Documentation/gpu/drm-usage-stats.rst); figures are those of the hosts named beside them. The rest is
constructed: PCI addresses and unique ids but for the named ones, GTT of cards, firmware, what processes hold.
No recording of a whole host was to be had.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hardware.proc_tree import GIB, meminfo, write

MIB = 2**20
KIB = 2**10


@dataclass
class AmdDevice:
    """One PCI device bound to amdgpu, with a KFD node for each of `gpu_ids`; `files` stand in its folder."""

    address: str
    device: int
    revision: int = 0
    unique_id: str = ""
    vram: tuple[int, int] | None = None
    gtt: tuple[int, int] | None = None
    board: str | None = "oam"
    sensors: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    gpu_ids: tuple[int, ...] = ()
    bank: tuple[int, int] = (1, 0)
    """heap type and size of each KFD node's memory bank"""
    minor: int = 128

    def all_files(self) -> dict[str, str]:
        """Every file of the device's folder, by relative path."""
        found = {
            "vendor": "0x1002\n",
            "device": f"0x{self.device:04x}\n",
            "revision": f"0x{self.revision:02x}\n",
            "numa_node": "-1\n",
            "power/runtime_status": "active\n",
            f"drm/card{self.minor - 127}/dev": f"226:{self.minor - 127}\n",
            f"drm/renderD{self.minor}/dev": f"226:{self.minor}\n",
        }
        for name, pair in (("vram", self.vram), ("vis_vram", self.vram), ("gtt", self.gtt)):
            if pair is not None:
                found[f"mem_info_{name}_total"] = f"{pair[0]}\n"
                found[f"mem_info_{name}_used"] = f"{pair[1]}\n"
        if self.unique_id:
            found["unique_id"] = f"{self.unique_id}\n"
        if self.board is not None:
            found["board_info"] = f"type : {self.board}\n"
        found |= {f"hwmon/hwmon{self.minor - 121}/{name}": f"{text}\n" for name, text in self.sensors.items()}
        return found | self.files


@dataclass
class AmdHost:
    """A tree below `root`: `sys` and `proc`."""

    root: Path

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def kfd(self) -> Path:
        return self.sys / "class" / "kfd" / "kfd"

    def folder(self, address: str) -> Path:
        """The device's folder."""
        return self.sys / "devices" / "pci0000:00" / address

    def put(self, address: str, name: str, text: str) -> None:
        """Write one file of a device."""
        write(self.folder(address), {name: text})

    def remove(self, address: str) -> None:
        """Take the device away as the kernel does: it is no longer bound, and its folder is gone."""
        (self.sys / "bus/pci/drivers/amdgpu" / address).unlink()
        self.folder(address).rename(self.root / f"gone-{address}")

    def holds(self, pid: int, **bytes_by_gpu_id: int) -> None:
        """A process that KFD knows; keywords are `gpu_<id>`."""
        (self.kfd / "proc" / str(pid)).mkdir(parents=True, exist_ok=True)
        for name, size in bytes_by_gpu_id.items():
            gpu_id = name.removeprefix("gpu_")
            write(self.kfd / "proc" / str(pid), {f"vram_{gpu_id}": f"{size}\n"})

    def opens(self, pid: int, fd: int, node: str, fdinfo: str) -> None:
        """A process that has a DRM device file open."""
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        (folder / "fd" / str(fd)).symlink_to(f"/dev/dri/{node}")
        write(folder, {f"fdinfo/{fd}": fdinfo})


def host(root: Path, devices: list[AmdDevice], *, ram_gib: int = 64) -> AmdHost:
    """A host with these devices, bound to amdgpu, and KFD nodes for those that have gpu ids."""
    made = AmdHost(root)
    write(
        made.proc,
        {
            "meminfo": meminfo(ram_gib, ram_gib // 2),
            "sys/kernel/osrelease": "6.8.0-45-generic\n",
        },
    )
    (made.sys / "module" / "amdgpu").mkdir(parents=True)
    bound = made.sys / "bus" / "pci" / "drivers" / "amdgpu"
    bound.mkdir(parents=True)
    write(bound, {"bind": "", "new_id": "", "uevent": ""})
    write(made.kfd, {"topology/generation_id": "2\n", "topology/nodes/0/gpu_id": "0\n"})
    write(made.kfd, {"topology/nodes/0/properties": "cpu_cores_count 16\nsimd_count 0\nlocation_id 0\n"})
    (made.kfd / "proc").mkdir()
    number = 1
    for device in devices:
        write(made.folder(device.address), device.all_files())
        (bound / device.address).symlink_to(made.folder(device.address))
        for part, gpu_id in enumerate(device.gpu_ids):
            write(made.kfd / "topology" / "nodes" / str(number), node(device, part, gpu_id))
            number += 1
    return made


def node(device: AmdDevice, part: int, gpu_id: int) -> dict[str, str]:
    """The files of one KFD node. Lines and their order are those of a recorded Radeon RX 7900 XTX, some left
    out; `local_mem_size` is 0 on every device."""
    domain, bus, _ = device.address.split(":")
    slot = int(device.address.split(":")[2].split(".")[0], 16)
    location = part << 28 | int(bus, 16) << 8 | slot << 3
    heap, size = device.bank
    return {
        "gpu_id": f"{gpu_id}\n",
        "name": "\n",
        "properties": (
            "cpu_cores_count 0\nsimd_count 192\nmem_banks_count 1\ncaches_count 206\nio_links_count 1\n"
            "p2p_links_count 5\nmax_waves_per_simd 16\nlds_size_in_kb 64\ngfx_target_version 90402\n"
            f"vendor_id 4098\ndevice_id {device.device}\nlocation_id {location}\ndomain {int(domain, 16)}\n"
            f"drm_render_minor {device.minor + part}\nhive_id 0\nmax_engine_clk_fcompute 2100\n"
            "local_mem_size 0\nfw_version 2140\ncapability 671588992\nsdma_fw_version 20\n"
            f"unique_id {int(device.unique_id or '0', 16)}\nnum_xcc 1\nmax_engine_clk_ccompute 2400\n"
        ),
        "mem_banks/0/properties": (
            f"heap_type {heap}\nsize_in_bytes {size}\nflags 0\nwidth 8192\nmem_clk_max 1300\n"
        ),
    }


MI300X_VRAM = 206_141_652_992
"""VRAM of an MI300X, and below what of it is in use when idle: rocm-smi in ROCm/legacy-rocm-build#4750."""
MI300X_IDLE = 297_771_008
MI300X_ADDRESSES = tuple(f"0000:{bus}:00.0" for bus in ("05", "26", "46", "65", "85", "a6", "c6", "e5"))
R1_RANK = 170 * GIB


def mi300x(index: int, used: int = MI300X_IDLE, parts: int = 1) -> AmdDevice:
    """Temperature, power and its limit are those of ROCm/legacy-rocm-build#4750 (43 °C, 134 W, 750 W);
    errors are constructed, in the shape of amdgpu_ras.c."""
    return AmdDevice(
        address=MI300X_ADDRESSES[index],
        device=0x74A1,
        unique_id=f"{0xA1B2C3D4E5F60000 + index:016x}",
        vram=(MI300X_VRAM, used),
        gtt=(811_339_575_296, 61_865_984),
        sensors={
            "name": "amdgpu",
            "temp2_label": "junction",
            "temp2_input": "43000",
            "temp3_label": "mem",
            "temp3_input": "38000",
            "power1_label": "PPT",
            "power1_input": "134000000",
            "power1_cap": "750000000",
        },
        files={
            "numa_node": f"{index // 4}\n",
            "gpu_busy_percent": "97\n" if used > GIB else "0\n",
            "mem_busy_percent": "41\n" if used > GIB else "0\n",
            "ras/umc_err_count": f"ue: 0\nce: {3 if index == 2 else 0}\n",
            "ras/gfx_err_count": "ue: 0\nce: 0\n",
            "vbios_version": "113-M3000100-102\n",
            "fw_version/smc_fw_version": "0x00557300\n",
            "fw_version/sos_fw_version": "0x00360f62\n",
            "fw_version/mec_fw_version": "0x000000a6\n",
            "current_compute_partition": "SPX\n" if parts == 1 else "CPX\n",
            "current_memory_partition": "NPS1\n",
            "available_compute_partition": "SPX, DPX, QPX, CPX\n",
        },
        gpu_ids=tuple(60_000 + 100 * index + part for part in range(parts)),
        bank=(1, MI300X_VRAM // parts),
        minor=128 + index * parts,
    )


def eight_mi300x(root: Path) -> AmdHost:
    """Eight MI300X that serve a model from one process each, whose sizes are constructed."""
    made = host(root, [mi300x(index, MI300X_IDLE + R1_RANK) for index in range(8)], ram_gib=2048)
    write(made.sys, {"module/amdgpu/version": "6.12.12\n"})  # ROCm's own module, as issue #4750's host has
    for index in range(8):
        # KFD gives every process a file for every device that it may see.
        ids = {f"gpu_{60_000 + 100 * other}": R1_RANK if other == index else 0 for other in range(8)}
        made.holds(5000 + index, **ids)
    return made


MI250_VRAM = 68_702_699_520
"""`size_in_bytes` of one die's memory bank (rocm_smi_kfd.cc of rocm_smi_lib quotes it)."""


def mi250(root: Path) -> AmdHost:
    """One MI250: two dies, each a PCI device. The first die's power is the package's, the second says 0
    (aldebaran_ppt.c); 94 W of 560 W is an idle one's. The first unique id is that of rocm_smi_lib#165."""
    dies = []
    for die, unique in enumerate(("1f9de0957d137942", "1f9de0957d137943")):
        dies.append(
            AmdDevice(
                address=f"0000:{0x2F + die:02x}:00.0",
                device=0x740C,
                revision=1,
                unique_id=unique,
                vram=(MI250_VRAM, 10_960_896 + die * 8 * GIB),
                gtt=(270_000_000_000, 14_000_000),
                sensors={
                    "name": "amdgpu",
                    "temp1_label": "edge",
                    "temp1_input": "36000",
                    "temp2_label": "junction",
                    "temp2_input": "41000",
                    "temp3_label": "mem",
                    "temp3_input": "39000",
                    "power1_average": "94000000" if die == 0 else "0",
                    "power1_cap": "560000000" if die == 0 else "0",
                },
                files={
                    "gpu_busy_percent": "0\n",
                    "mem_busy_percent": "0\n",
                    "ras/umc_err_count": "ue: 0\nce: 0\n",
                },
                gpu_ids=(41_000 + die,),
                bank=(1, MI250_VRAM),
                minor=128 + die,
            )
        )
    made = host(root, dies, ram_gib=512)
    made.holds(7001, gpu_41000=0, gpu_41001=8 * GIB)
    return made


STRIX_VRAM, STRIX_GTT = 4 * GIB, 103_079_215_104
"""Carve-out and GTT of a Ryzen AI MAX+ 395 with 128 GB (noamsto/nix-amd-ai#42)."""
STRIX = "0000:c3:00.0"


def fdinfo(address: str, client: int, vram_kib: int, gtt_kib: int) -> str:
    """An `fdinfo` of amdgpu: lines of one that a patch on the amd-gfx mailing list quotes, other numbers; the
    blank before a tab is the kernel's."""
    return (
        f"pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t1284\ndrm-driver:\tamdgpu\ndrm-client-id:\t{client}\n"
        f"drm-pdev:\t{address}\npasid:\t32771\ndrm-total-cpu:\t0\ndrm-shared-cpu:\t0\n"
        f"drm-total-gtt:\t{gtt_kib} KiB\ndrm-shared-gtt:\t0\ndrm-resident-gtt:\t{gtt_kib} KiB\n"
        f"drm-total-vram:\t{vram_kib} KiB\ndrm-shared-vram:\t0\ndrm-resident-vram:\t{vram_kib} KiB\n"
        f"drm-purgeable-vram:\t0\ndrm-memory-vram:\t{vram_kib} KiB\ndrm-memory-gtt: \t{gtt_kib} KiB\n"
        "drm-memory-cpu: \t0 KiB\namd-evicted-vram:\t0 KiB\ndrm-engine-compute:\t46464671 ns\n"
    )


def strix_halo(root: Path) -> AmdHost:
    """A Strix Halo APU whose models live in GTT: a compute server that KFD knows, and a Vulkan one that only
    its open files show. Device, revision, address: magnitudedev/magnitude#44; processes are constructed."""
    made = host(
        root,
        [
            AmdDevice(
                address=STRIX,
                device=0x1586,
                revision=0xD1,
                vram=(STRIX_VRAM, 600 * MIB),
                gtt=(STRIX_GTT, 62 * GIB),
                board=None,
                sensors={
                    "name": "amdgpu",
                    "temp1_label": "edge",
                    "temp1_input": "58000",
                    "power1_label": "PPT",
                    "power1_input": "71000000",
                },
                files={"gpu_busy_percent": "88\n", "vbios_version": "113-STRXLGEN-001\n"},
                gpu_ids=(21_532,),
                bank=(1, STRIX_GTT),
            )
        ],
        ram_gib=123,
    )
    made.holds(3098, gpu_21532=40 * GIB)
    for fd in (7, 8):  # the same client, its file duplicated
        made.opens(4100, fd, "renderD128", fdinfo(STRIX, 27, 512 * KIB, 20 * KIB * KIB))
    made.opens(3098, 5, "renderD128", fdinfo(STRIX, 31, 0, 39 * KIB * KIB))
    return made
