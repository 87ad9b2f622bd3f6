"""Reads AMD devices from sysfs, without a vendor library; runs only inside the worker process.

Files and units: the kernel's Documentation/gpu/amdgpu (driver-misc, thermal) and Documentation/hwmon. Nothing
is opened below /dev, so nothing here keeps a driver from being unloaded. A device is a PCI device bound to
`amdgpu`; divided into partitions, it is as many devices as KFD has nodes for it.
Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from exporter.hardware import amd_names, fdinfo, kfd
from exporter.hardware.amd_values import firmware, health, load, memory, partitioning, power
from exporter.hardware.driver import Reading, Unreadable
from exporter.hardware.sysfs import Folder, names, read_text, reason_of

_ASLEEP = ("suspended", "suspending", "resuming")  # Documentation/ABI/testing/sysfs-devices-power


class _Device(NamedTuple):
    """What is read as one device. `node` is KFD's, None where it has none; `part` is the partition's number
    among `parts`, None for a device that is not divided."""

    address: str
    node: kfd.Node | None
    part: int | None
    parts: tuple[kfd.Node, ...]


class Driver:
    """The amdgpu driver below the roots of sysfs and procfs. Raises Unreadable when it is not loaded."""

    def __init__(self, sys: str, proc: str) -> None:
        self._sys = sys
        self._bound = f"{sys}/bus/pci/drivers/amdgpu"
        self._kfd = f"{sys}/class/kfd/kfd"
        self._files = fdinfo.OpenFiles(proc)
        self._topology: tuple[str, kfd.Topology] = ("", kfd.Topology((), ""))
        self._devices: list[_Device] = []
        self._unique: dict[str, str] = {}
        """PCI address → uuid; also while the device is being reset, when it does not tell"""
        self._held: dict[str, dict[int, dict[int, int] | None]] = {}
        self.version = _version(sys, proc)
        self.count()

    def count(self) -> int:
        """Devices and partitions bound to the driver now, by PCI address, then by partition."""
        try:
            addresses = [name for name in names(self._bound) if kfd.parse_address(name)]
        except FileNotFoundError:
            raise Unreadable("driver_not_loaded", fatal=True) from None
        except OSError as error:
            raise Unreadable(reason_of(error), call="drivers/amdgpu", fatal=True) from None
        self._held = {}
        self._devices = []
        nodes = self._read_topology().nodes
        places = sorted((place, name) for name in addresses if (place := kfd.parse_address(name)))
        slots = [place[:3] for place, _ in places]
        for place, address in places:
            alone = slots.count(place[:3]) == 1
            own = tuple(one for one in nodes if one.slot == place[:3] and (alone or one.function == place[3]))
            if len(own) > 1:
                self._devices += [_Device(address, node, part, own) for part, node in enumerate(own)]
            else:
                self._devices.append(_Device(address, own[0] if own else None, None, ()))
        return len(self._devices)

    def read(self, index: int, *, links: bool = False) -> Reading:
        """Everything of one device. Raises Unreadable when it sleeps or is gone."""
        device = self._devices[index]
        errors: dict[str, str] = {}
        folder = Folder(f"{self._bound}/{device.address}", errors)
        asleep = folder.text("power/runtime_status") in _ASLEEP
        identity = self._identify(index, device, folder)
        if asleep:
            raise Unreadable("asleep", state="suspended", identity=identity)
        unified = identity["memory_kind"] == "unified"
        whole = memory(folder, unified=unified)
        processes = self._processes(device, folder, unified=unified)
        values = whole if device.part is None else self._part_memory(device, whole, processes)
        if not device.part:  # what a divided device says of itself as a whole stands with its first part
            for part in (power, load, health, firmware):
                values.update(part(folder))
        values.update(partitioning(folder))
        if not folder.has("vendor"):
            raise Unreadable("vanished", state="lost")
        rows = None if processes is None else [[pid, size] for pid, size in sorted(processes.items())]
        return {"identity": identity, "values": values, "processes": rows, "errors": errors}

    def _read_topology(self) -> kfd.Topology:
        """KFD's nodes, read anew when their generation changes or some could not be read."""
        try:
            generation = read_text(f"{self._kfd}/topology/generation_id")
        except OSError:
            generation = ""
        known, topology = self._topology
        if not generation or generation != known or topology.problem:
            self._topology = (generation, kfd.read_topology(self._kfd))
        return self._topology[1]

    def _identify(self, index: int, device: _Device, folder: Folder) -> Reading:
        """Asks only what the driver remembers, so that a sleeping device stays asleep."""
        quiet = Folder(folder.path, {})
        chip = _hexadecimal(quiet.text("device"))
        if chip is None:
            raise Unreadable("vanished", state="lost")
        unique = self._uuid(device.address, quiet)
        name = amd_names.name_of(chip, _hexadecimal(quiet.text("revision")))
        unified = chip in amd_names.APUS if name else not _is_card(quiet)
        return {
            "index": index,
            "uuid": unique if device.part is None else f"{unique}:{device.part}",
            "name": name or quiet.text("product_name") or f"AMD GPU 0x{chip:04x}",
            "pci_bus_id": device.address,
            "numa_node": quiet.integer("numa_node", least=-1, most=2**16),
            "memory_kind": "unified" if unified else "dedicated" if device.part is None else "partition",
        }

    def _uuid(self, address: str, folder: Folder) -> str:
        """The device's unique id as ROCm writes it (rocminfo, ROCR_VISIBLE_DEVICES), else its PCI address.

        Raises Unreadable when the device has one and does not tell, as during a reset on older kernels.
        """
        text = (folder.text("unique_id") or "").lower()
        if text.isascii() and text.isalnum() and text.strip("0"):
            unique = f"GPU-{text}"
            if unique in (known for other, known in self._unique.items() if other != address):
                unique = f"{unique}@{address}"
        elif folder.errors.get("unique_id", "empty") != "empty" and address not in self._unique:
            raise Unreadable(folder.errors["unique_id"], call="unique_id")
        else:
            unique = self._unique.get(address, address)
        self._unique[address] = unique
        return unique

    def _processes(self, device: _Device, folder: Folder, *, unified: bool) -> dict[int, int] | None:
        """pid → bytes of every process on the device; None when nothing says who is there.

        KFD counts what compute asked for, and needs no right; `fdinfo` sees compute and graphics, of those
        processes that may be looked into. Both see the same memory, so the larger counts.
        """
        held = None if device.node is None else self._held_on(device, device.node)
        if device.part is None:
            try:
                nodes = names(f"{folder.path}/drm")
            except OSError:
                nodes = []
        else:
            nodes = [f"renderD{device.node.render_minor}"] if device.node else []
        seen = {
            pid: usage.vram_bytes + (usage.gtt_bytes if unified else 0)
            for pid, usage in self._files.usage(nodes, device.address).items()
        }
        if held is None:
            if problem := self._topology[1].problem or ("unreadable" if device.node else ""):
                folder.errors["kfd"] = problem
            if self._files.denied and not seen:
                folder.errors["processes"] = "no_permission"
                return None
        known = held or {}
        return {pid: max(known.get(pid, 0), seen.get(pid, 0)) for pid in {*known, *seen}}

    def _held_on(self, device: _Device, node: kfd.Node) -> dict[int, int] | None:
        """KFD's processes on one node, read once in a sweep."""
        of_device = self._held.setdefault(device.address, {})
        if node.gpu_id not in of_device:
            of_device[node.gpu_id] = kfd.read_processes(self._kfd, node.gpu_id)
        return of_device[node.gpu_id]

    def _part_memory(self, device: _Device, whole: Reading, processes: dict[int, int] | None) -> Reading:
        """The memory of a partition: the kernel gives its size, and who holds how much, but not its use.

        Used is what processes hold. What the whole device has in use beyond all partitions' processes, the
        driver's own mostly, counts as reserved, in equal shares, so that the parts sum to the whole.
        """
        total = device.node.memory_bytes if device.node else None
        if total is None:
            return {}
        values: Reading = {"memory_total_bytes": total}
        held = [self._held_on(device, node) for node in device.parts]
        whole_used = whole.get("memory_used_bytes")
        if processes is None or whole_used is None or any(one is None for one in held):
            return values
        used = min(total, sum(processes.values()))
        of_processes = sum(sum(one.values()) for one in held if one is not None)
        reserved = min(total - used, max(0, whole_used - of_processes) // len(device.parts))
        return {
            **values,
            "memory_used_bytes": used,
            "memory_reserved_bytes": reserved,
            "memory_free_bytes": total - used - reserved,
        }


def _is_card(folder: Folder) -> bool:
    """Whether the device has memory of its own, for one that is not in the table of names.

    The kernel offers `board_info` for everything but APUs (amdgpu_device.c); before it did, it offered
    `mem_busy_percent` or `pcie_bw` for nearly all cards and no APU (amdgpu_pm.c). KFD's `local_mem_size`,
    which is often asked, is 0 for all of them.
    """
    return any(folder.has(name) for name in ("board_info", "mem_busy_percent", "pcie_bw"))


def _hexadecimal(text: str | None) -> int | None:
    """A number such as sysfs prints ids: 0x74a1."""
    try:
        return int(text or "", 16) if len(text or "") <= 10 else None
    except ValueError:
        return None


def _version(sys: str, proc: str) -> str:
    """The module's own version where it has one, as ROCm's does, else the kernel's, with which it came."""
    for path in (f"{sys}/module/amdgpu/version", f"{proc}/sys/kernel/osrelease"):
        try:
            if text := read_text(path):
                return text[:64]
        except OSError:
            continue
    return os.uname().release
