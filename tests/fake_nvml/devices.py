"""What the fake driver's devices are: the values of a GPU or MIG slice, and ready-made believable ones.

Values of the H200, the H100 and its MIG slices, and what a GeForce board leaves unsupported, are facts of the
nvidia_gpu_exporter captures (MIT; driver 590.48.01 and 595.71.05); other sources stand at their device.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20
_NOT_SUPPORTED = 3
_POWER_AVERAGE = 185  # NVML_FI_DEV_POWER_AVERAGE

XID_EVENT = 0x8
"""nvmlEventTypeXidCriticalError (NVML API reference)."""
DATA_CENTER_EVENTS = 0x1 | 0x2 | XID_EVENT | 0x10 | 0x80
"""ECC, Xid, clock and power-source events; a believable mask, not one read from a board."""

ProcessKind = Literal["compute", "graphics", "mps"]
ValueType = Literal["u32", "u64", "i64", "double"]


@dataclass(slots=True)
class FakeProcess:
    """One process on a device; `used_bytes` None is NVML's "value not available"."""

    pid: int
    used_bytes: int | None
    kind: ProcessKind = "compute"


@dataclass(slots=True)
class FieldValue:
    """A value of nvmlDeviceGetFieldValues that the other numbers do not give, or that overrules them.

    scope None answers every scope (0 GPU, 1 module, 2 memory).
    """

    field_id: int
    value: float
    type: ValueType = "u64"
    scope: int | None = None


@dataclass(slots=True)
class FieldError:
    """The nvmlReturn of one field; the call itself succeeds. scope None: every scope."""

    field_id: int
    code: int
    scope: int | None = None


@dataclass(slots=True, kw_only=True)
class FakeDevice:
    """A GPU. A number that is None is "not supported" by it, and can be changed at any time.

    Numbers have the names of the control file. `*_calls` take the name of an NVML call, or a shell pattern
    (`nvmlDeviceGetMemoryInfo*`, `*`); where several match, the first one counts. process_growth: so many
    processes more are there when a list of processes is filled than when its size was asked, at the first
    process_growth_calls fillings after a change (negative: at all). energy_advances: energy grows by the
    average power as time passes. mig_pending None: as mig_enabled. A slice's memory is that of its GPU
    instance: two slices with one gpu_instance are two compute instances that share it.
    """

    uuid: str
    name: str | None = None
    pci_bus_id: str | None = None
    serial: str | None = None

    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    memory_used_bytes: int | None = None
    bar1_total_bytes: int | None = None
    bar1_used_bytes: int | None = None
    power_average_milliwatts: int | None = None
    power_instant_milliwatts: int | None = None
    power_usage_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    power_enforced_limit_milliwatts: int | None = None
    power_default_limit_milliwatts: int | None = None
    power_min_limit_milliwatts: int | None = None
    power_max_limit_milliwatts: int | None = None
    energy_millijoules: int | None = None
    energy_since_nanoseconds: int | None = None
    clocks_event_reasons: int | None = None
    clock_sm_megahertz: int | None = None
    clock_memory_megahertz: int | None = None
    performance_state: int | None = None
    utilization_gpu_percent: int | None = None
    utilization_memory_percent: int | None = None
    temperature_gpu_celsius: int | None = None
    temperature_memory_celsius: int | None = None
    ecc_enabled: int | None = None
    ecc_corrected_volatile: int | None = None
    ecc_uncorrected_volatile: int | None = None
    ecc_corrected_aggregate: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remapped_rows_pending: int | None = None
    remapped_rows_failure: int | None = None
    mig_enabled: int | None = None
    mig_pending: int | None = None
    mig_max_devices: int | None = None
    mig_index: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    gpu_instance_slices: int | None = None
    compute_instance_slices: int | None = None
    multiprocessors: int | None = None
    numa_node: int | None = None
    addressing_mode: int | None = None
    minor_number: int | None = None
    persistence_enabled: int | None = None
    compute_mode: int | None = None
    architecture: int | None = None
    compute_capability_major: int | None = None
    compute_capability_minor: int | None = None
    memory_bus_width_bits: int | None = None
    pcie_tx_kilobytes_per_second: int | None = None
    pcie_rx_kilobytes_per_second: int | None = None
    pcie_link_generation: int | None = None
    pcie_link_width: int | None = None
    pci_device_id: int | None = None
    event_types: int | None = None

    lost: bool = False
    energy_advances: bool = False
    process_growth: int = 0
    process_growth_calls: int = -1
    processes: list[FakeProcess] = field(default_factory=list)
    fields: list[FieldValue] = field(default_factory=list)
    field_errors: list[FieldError] = field(default_factory=list)
    error_calls: dict[str, int] = field(default_factory=dict)
    delay_calls: dict[str, float] = field(default_factory=dict)
    hang_calls: set[str] = field(default_factory=set)
    signal_calls: dict[str, int] = field(default_factory=dict)
    migs: list[FakeDevice] = field(default_factory=list)

    def set_power(self, milliwatts: int) -> None:
        """The three power readings at once."""
        self.power_average_milliwatts = milliwatts
        self.power_instant_milliwatts = milliwatts
        self.power_usage_milliwatts = milliwatts

    def occupy(self, pid: int, used_bytes: int, kind: ProcessKind = "compute") -> None:
        """A process takes memory: it is listed and the device's used bytes grow."""
        self.processes.append(FakeProcess(pid, used_bytes, kind))
        if self.memory_used_bytes is not None:
            self.memory_used_bytes += used_bytes

    def cut(
        self, profile: str, instance: int, total_mib: int, used_mib: int, *, compute_instance: int = 0
    ) -> FakeDevice:
        """Switch MIG on and create a slice in the first free place; multiprocessors follow the profile."""
        slices = int(profile.partition("g.")[0].rpartition("c.")[2])
        _slice(
            self,
            profile,
            instance,
            total_mib,
            used_mib,
            slices=slices,
            multiprocessors=16 * slices,
            compute_instance=compute_instance,
        )
        return self.migs[-1]

    def vacate(self, pid: int) -> None:
        """The process ends and gives its memory back."""
        gone = [p for p in self.processes if p.pid == pid]
        self.processes = [p for p in self.processes if p.pid != pid]
        if self.memory_used_bytes is not None:
            self.memory_used_bytes -= sum(p.used_bytes or 0 for p in gone)

    @classmethod
    def h200(cls, index: int = 0) -> FakeDevice:
        """NVIDIA H200, idle: 143,771 MiB, of which the driver reserves 614."""
        device = _hopper(index, "NVIDIA H200", 143_771, 614)
        device.bar1_total_bytes = 262_144 * MIB
        device.temperature_gpu_celsius, device.temperature_memory_celsius = 28, 32
        device.clock_memory_megahertz = 3201
        device.pci_device_id = 0x233510DE
        device.memory_bus_width_bits = 6144
        device.set_power(77_670)
        return device

    @classmethod
    def h100(cls, index: int = 0) -> FakeDevice:
        """NVIDIA H100 80GB HBM3, idle: 81,559 MiB, of which the driver reserves 479."""
        device = _hopper(index, "NVIDIA H100 80GB HBM3", 81_559, 479)
        device.bar1_total_bytes = 131_072 * MIB
        device.temperature_gpu_celsius, device.temperature_memory_celsius = 41, 48
        device.clock_memory_megahertz = 2619
        device.pci_device_id = 0x233010DE
        device.memory_bus_width_bits = 5120
        device.set_power(69_850)
        return device

    @classmethod
    def h100_mig(cls, index: int = 0) -> FakeDevice:
        """The H100 of the MIG capture: 3g.40gb, 2g.20gb, two 1g.10gb; no utilization, as always with MIG."""
        device = cls.h100(index)
        _slice(device, "3g.40gb", 2, 40_448, 26, slices=3, multiprocessors=60)
        _slice(device, "2g.20gb", 3, 20_096, 17, slices=2, multiprocessors=32)
        _slice(device, "1g.10gb", 9, 9_984, 9, slices=1, multiprocessors=16)
        _slice(device, "1g.10gb", 10, 9_984, 9, slices=1, multiprocessors=16)
        return device

    @classmethod
    def a100_mig(cls, index: int = 0) -> FakeDevice:
        """NVIDIA A100-SXM4-80GB cut into three 2g.20gb slices.

        81,920 MiB: mig-parted#31. Slices of 19,968 MiB and 28 multiprocessors, 13 MiB used when idle:
        nvitop#8. 904 MB reserved: the two memory readings of nvml-wrapper#57. Limit 400 W: aiconfigurator's
        system files. Idle 59 W: nvidia-smi outputs in public repositories.
        """
        device = _data_center(index, "NVIDIA A100-SXM4-80GB", 81_920 * MIB, 904_000_000)
        device.architecture, device.compute_capability_major, device.compute_capability_minor = 7, 8, 0
        device.temperature_gpu_celsius = 26
        _set_limits(device, 400_000)
        device.set_power(59_000)
        for instance in (3, 5, 6):
            _slice(device, "2g.20gb", instance, 19_968, 13, slices=2, multiprocessors=28)
        return device

    @classmethod
    def rtx_4090(cls, index: int = 0) -> FakeDevice:
        """NVIDIA GeForce RTX 4090: no ECC, no MIG, no memory temperature, no remapped rows.

        What it answers, 434 MiB reserved and 25.92 W idle: the RTX 4080 SUPER of the captures. 24,564 MiB and
        450 W: nvidia-smi outputs in public repositories.
        """
        device = _base(index, "NVIDIA GeForce RTX 4090", 24_564 * MIB, 434 * MIB)
        device.architecture, device.compute_capability_major, device.compute_capability_minor = 8, 8, 9
        device.addressing_mode = 1
        device.temperature_gpu_celsius = 45
        device.pcie_link_generation = 4
        device.event_types = XID_EVENT
        _set_limits(device, 450_000)
        device.set_power(25_920)
        return device

    @classmethod
    def gb10(cls, index: int = 0) -> FakeDevice:
        """NVIDIA GB10 (DGX Spark): unified memory, so none of its own to report; processes and power work.

        Memory "Not Supported", 4 W, no power limit, bus id 0000000F:01:00.0, no ECC, no MIG: nvidia-smi
        output in k8s-device-plugin#1482. Address translation services (ATS): llmfit#93.
        """
        device = _base(index, "NVIDIA GB10", None, None)
        device.pci_bus_id = "0000000F:01:00.0"
        device.architecture, device.compute_capability_major, device.compute_capability_minor = 10, 12, 1
        device.addressing_mode = 2
        device.temperature_gpu_celsius = 40
        device.performance_state = 8
        device.event_types = XID_EVENT
        device.set_power(4_000)
        return device

    @classmethod
    def thor(cls, index: int = 0) -> FakeDevice:
        """NVIDIA Thor (Jetson): as a GB10. Its name: micytao/vllm-playground#11; memory not supported:
        cosmos-reason1#61; address translation services and no memory: llmfit#93. Power is constructed."""
        device = cls.gb10(index)
        device.uuid, device.name = _identifier("GPU", "Thor", index), "NVIDIA Thor"
        return device

    @classmethod
    def orin(cls, index: int = 0) -> FakeDevice:
        """Orin (Jetson): NVML starts, names it, and answers nothing else (intelligence-per-watt#40, driver
        595.78; OE4T/linux-tegra-5.10#17). That it has a uuid is unverified."""
        device = FakeDevice(uuid=_identifier("GPU", "Orin", index), name="Orin (nvgpu)")
        device.error_calls["nvmlDeviceGet*RunningProcesses*"] = _NOT_SUPPORTED
        return device

    @classmethod
    def gh200(cls, index: int = 0) -> FakeDevice:
        """NVIDIA GH200 480GB: HBM of its own beside RAM that it reaches by address translation services.

        97,871 MiB, 900 W: nvidia-smi outputs in public repositories. That power is told for the module alone:
        zeus (device/gpu/nvidia.py). What the driver reserves is constructed.
        """
        device = _hopper(index, "NVIDIA GH200 480GB", 97_871, 600)
        device.addressing_mode = 2
        device.temperature_gpu_celsius = 30
        _set_limits(device, 900_000)
        device.fields = [FieldValue(_POWER_AVERAGE, 160_000, "u32", scope=1)]
        return device


def many(kind: str, count: int) -> list[FakeDevice]:
    """`count` devices of one of the `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"no fake device is called {kind!r}: there are {', '.join(KINDS)}")
    return [getattr(FakeDevice, kind)(index) for index in range(count)]


KINDS: Sequence[str] = (
    "h200",
    "h100",
    "h100_mig",
    "a100_mig",
    "rtx_4090",
    "gb10",
    "thor",
    "orin",
    "gh200",
)


def _identifier(prefix: str, *parts: object) -> str:
    return f"{prefix}-{uuids.uuid5(uuids.NAMESPACE_OID, ' '.join(map(str, parts)))}"


def _base(index: int, name: str, total: int | None, reserved: int | None) -> FakeDevice:
    return FakeDevice(
        uuid=_identifier("GPU", name, index),
        name=name,
        pci_bus_id=f"{index // 8:08X}:{0x18 + 0x10 * (index % 8):02X}:00.0",
        serial=f"{1_650_000_000_000 + index}",
        memory_total_bytes=total,
        memory_reserved_bytes=reserved,
        memory_used_bytes=None if total is None else 0,
        energy_millijoules=1_000_000_000 + index,
        energy_advances=True,
        clocks_event_reasons=0x1,
        clock_sm_megahertz=345,
        performance_state=0,
        utilization_gpu_percent=0,
        utilization_memory_percent=0,
        minor_number=index,
        persistence_enabled=1,
        compute_mode=0,
        addressing_mode=0,
        pcie_tx_kilobytes_per_second=371,
        pcie_rx_kilobytes_per_second=337,
        pcie_link_generation=5,
        pcie_link_width=16,
    )


def _data_center(index: int, name: str, total: int, reserved: int) -> FakeDevice:
    device = _base(index, name, total, reserved)
    device.ecc_enabled = 1
    device.ecc_corrected_volatile = device.ecc_uncorrected_volatile = 0
    device.ecc_corrected_aggregate = device.ecc_uncorrected_aggregate = 0
    device.remapped_rows_corrected = device.remapped_rows_uncorrected = 0
    device.remapped_rows_pending = device.remapped_rows_failure = 0
    device.mig_enabled, device.mig_max_devices = 0, 7
    device.event_types = DATA_CENTER_EVENTS
    return device


def _hopper(index: int, name: str, total_mib: int, reserved_mib: int) -> FakeDevice:
    device = _data_center(index, name, total_mib * MIB, reserved_mib * MIB)
    device.architecture, device.compute_capability_major, device.compute_capability_minor = 9, 9, 0
    _set_limits(device, 700_000)
    device.power_min_limit_milliwatts, device.power_max_limit_milliwatts = 200_000, 700_000
    return device


def _set_limits(device: FakeDevice, milliwatts: int) -> None:
    device.power_limit_milliwatts = milliwatts
    device.power_enforced_limit_milliwatts = milliwatts
    device.power_default_limit_milliwatts = milliwatts


def _slice(
    gpu: FakeDevice,
    profile: str,
    instance: int,
    total_mib: int,
    used_mib: int,
    *,
    slices: int,
    multiprocessors: int,
    compute_instance: int = 0,
) -> None:
    gpu.mig_enabled = 1
    gpu.utilization_gpu_percent = gpu.utilization_memory_percent = None
    gpu.memory_used_bytes = (gpu.memory_used_bytes or 0) + used_mib * MIB
    taken = {one.mig_index for one in gpu.migs}
    gpu.migs.append(
        FakeDevice(
            # The same for the same place, as drivers since R470 give it: a slice can come back under it.
            uuid=_identifier("MIG", gpu.uuid, instance, *filter(None, [compute_instance])),
            name=f"{gpu.name} MIG {profile}",
            memory_total_bytes=total_mib * MIB,
            memory_reserved_bytes=0,
            memory_used_bytes=used_mib * MIB,
            mig_index=next(place for place in range(64) if place not in taken),
            gpu_instance=instance,
            compute_instance=compute_instance,
            gpu_instance_slices=slices,
            compute_instance_slices=slices,
            multiprocessors=multiprocessors,
        )
    )
