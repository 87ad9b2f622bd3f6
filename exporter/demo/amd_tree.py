"""AMD devices of a recorded host as files of /sys: what `hardware/amd` reads of them and nothing else.

Shapes: the kernel's Documentation/gpu/amdgpu, Documentation/hwmon, kfd_topology.c and amdgpu_ras.c. A device
is a folder, bound to the driver by a link; what processes hold stands below KFD.
"""

from __future__ import annotations

from collections.abc import Iterator

from exporter.demo.profile import Devices
from exporter.hardware.driver import Reading

_KFD = "sys/class/kfd/kfd"
_HEAP_OF_DEVICE = 1  # FB_PUBLIC of kfd_crat.h
_FIRST_RENDER_MINOR = 128


def contents(devices: Devices, readings: tuple[Reading | None, ...]) -> Iterator[tuple[str, str]]:
    """(path, text) of all files."""
    yield "sys/module/amdgpu/version", f"{devices.driver_version}\n"
    yield f"{_KFD}/topology/generation_id", "2\n"
    yield f"{_KFD}/topology/nodes/0/gpu_id", "0\n"  # the processors' node
    yield f"{_KFD}/topology/nodes/0/properties", "cpu_cores_count 16\nsimd_count 0\nlocation_id 0\n"
    for index, reading in enumerate(readings):
        if reading is not None:
            folder = _folder(reading)
            for name, text in _device(devices, reading):
                yield f"{folder}/{name}", text
            for name, text in _node(devices, index, reading):
                yield f"{_KFD}/topology/nodes/{index + 1}/{name}", text
            for pid, size in reading["processes"]:
                yield f"{_KFD}/proc/{pid}/vram_{_gpu_id(index)}", f"{size}\n"


def links(readings: tuple[Reading | None, ...]) -> Iterator[tuple[str, str]]:
    """(path, target) of what is bound to the driver."""
    for reading in readings:
        if reading is not None:
            address = reading["identity"]["pci_bus_id"]
            yield f"sys/bus/pci/drivers/amdgpu/{address}", f"../../../../../{_folder(reading)}"


def _folder(reading: Reading) -> str:
    return f"sys/devices/pci0000:00/{reading['identity']['pci_bus_id']}"


def _gpu_id(index: int) -> int:
    """Constructed: KFD's is a checksum of the device's properties."""
    return 60_000 + 100 * index


def _device(devices: Devices, reading: Reading) -> Iterator[tuple[str, str]]:
    identity, values = reading["identity"], reading["values"]
    yield "vendor", "0x1002\n"
    yield "device", f"0x{devices.pci_device:04x}\n"
    yield "revision", "0x00\n"
    yield "numa_node", f"{-1 if identity['numa_node'] is None else identity['numa_node']}\n"
    yield "unique_id", f"{identity['uuid'].removeprefix('GPU-')}\n"
    yield "board_info", "type : oam\n"
    yield "power/runtime_status", "active\n"
    for name in ("vram", "vis_vram"):
        yield f"mem_info_{name}_total", f"{values['memory_total_bytes']}\n"
        yield f"mem_info_{name}_used", f"{values['memory_used_bytes']}\n"
    yield "gpu_busy_percent", f"{round(values['utilization_ratio'] * 100)}\n"
    yield "mem_busy_percent", f"{round(values['memory_bandwidth_utilization_ratio'] * 100)}\n"
    yield "ras/umc_err_count", "ue: 0\nce: 0\n"
    yield "current_compute_partition", "SPX\n"
    yield "current_memory_partition", "NPS1\n"
    celsius = values["temperature_celsius"]
    yield "hwmon/hwmon7/temp2_label", "junction\n"
    yield "hwmon/hwmon7/temp2_input", f"{celsius['gpu'] * 1000}\n"
    if "memory" in celsius:
        yield "hwmon/hwmon7/temp3_label", "mem\n"
        yield "hwmon/hwmon7/temp3_input", f"{celsius['memory'] * 1000}\n"
    yield "hwmon/hwmon7/power1_input", f"{round(values['power_watts'] * 1e6)}\n"
    yield "hwmon/hwmon7/power1_cap", f"{round(values['power_limit_watts'] * 1e6)}\n"


def _node(devices: Devices, index: int, reading: Reading) -> Iterator[tuple[str, str]]:
    domain, bus, place = reading["identity"]["pci_bus_id"].split(":")
    location = int(bus, 16) << 8 | int(place.split(".")[0], 16) << 3
    yield "gpu_id", f"{_gpu_id(index)}\n"
    yield (
        "properties",
        "cpu_cores_count 0\nsimd_count 1216\nmem_banks_count 1\n"
        f"vendor_id 4098\ndevice_id {devices.pci_device}\n"
        f"location_id {location}\ndomain {int(domain, 16)}\ndrm_render_minor {_FIRST_RENDER_MINOR + index}\n"
        "local_mem_size 0\n",
    )
    size = reading["values"]["memory_total_bytes"]
    yield "mem_banks/0/properties", f"heap_type {_HEAP_OF_DEVICE}\nsize_in_bytes {size}\nflags 0\n"
