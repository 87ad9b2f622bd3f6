"""Families of devices: what they are, what they hold, draw and suffer."""

from __future__ import annotations

from exporter.exposition.families.family import DEVICE, Family, counter, gauge, info

GPU_INFO = info(
    "gpu",
    (
        *DEVICE,
        "name",
        "vendor",
        "driver_version",
        "pci_bus_id",
        "memory_kind",
        "numa_node",
        "pool",
    ),
    "What a device is; memory_kind is dedicated, unified (also the processor's), divided (a GPU in MIG mode: "
    "its memory is its slices'), mig (a slice) or partition.",
)
GPU_ORIGIN = info(
    "gpu_origin",
    (*DEVICE, "source", "support", "attribution"),
    "The exporter that tells of a device which is not read here, experimental; attribution: whether "
    "processes tell who holds it, or only the placement of deployments.",
)
GPU_HEALTHY = gauge(
    "gpu_healthy",
    (*DEVICE, "source"),
    "Whether the exporter that tells of the device calls it healthy; absent where it does not say.",
)
GPUS = gauge("gpus", ("vendor",), "Devices that the driver lists now.")
GPUS_EXPECTED = gauge(
    "gpus_expected", (), "Devices that this host should have: configured, else ever seen here."
)
GPU_UP = gauge(
    "gpu_up",
    DEVICE,
    "Whether the device answers, or sleeps unused; 0 for one that is lost, stalled or failing. Of a MIG "
    "slice only while its GPU answers.",
)
GPU_STATE = gauge(
    "gpu_state",
    (*DEVICE, "state"),
    "1 for the present state: up, suspended, stalled, lost, error, no_permission, released, driver_down, "
    "source_down.",
)
GPU_MEMORY_TOTAL = gauge(
    "gpu_memory_total_bytes",
    DEVICE,
    "Device memory; total = used + free + reserved. Of unified memory all of RAM, where the driver tells of "
    "no part of its own.",
)
GPU_MEMORY_USED = gauge(
    "gpu_memory_used_bytes",
    DEVICE,
    "Device memory in use, without what the driver reserves where it says so.",
)
GPU_MEMORY_FREE = gauge("gpu_memory_free_bytes", DEVICE, "Device memory that is free.")
GPU_MEMORY_RESERVED = gauge(
    "gpu_memory_reserved_bytes",
    DEVICE,
    "Device memory that the driver keeps for itself; absent on old drivers.",
)
GPU_MEMORY_HELD = gauge(
    "gpu_memory_held_bytes",
    (*DEVICE, "holder", "holder_kind"),
    "Used device memory by holder (deployment, other, unattributed); sums to used.",
)
GPU_GTT_TOTAL = gauge(
    "gpu_gtt_total_bytes", DEVICE, "RAM that an AMD device may map; of a unified one, part of its memory."
)
GPU_GTT_USED = gauge("gpu_gtt_used_bytes", DEVICE, "RAM that an AMD device has mapped.")
GPU_VISIBLE_TOTAL = gauge(
    "gpu_visible_memory_total_bytes", DEVICE, "Device memory that the processor can reach directly."
)
GPU_VISIBLE_USED = gauge(
    "gpu_visible_memory_used_bytes", DEVICE, "Of the memory that the processor can reach, what is in use."
)
GPU_UTILIZATION = gauge("gpu_utilization_ratio", DEVICE, "Share of time in which a kernel ran.")
GPU_BANDWIDTH = gauge(
    "gpu_memory_bandwidth_utilization_ratio",
    DEVICE,
    "Share of time in which device memory was read or written.",
)
GPU_TEMPERATURE = gauge(
    "gpu_temperature_celsius",
    (*DEVICE, "sensor"),
    "Temperature by sensor: gpu, memory, board; edge, junction, mem.",
)
GPU_POWER = gauge("gpu_power_watts", DEVICE, "Power draw, averaged by the driver where it can.")
GPU_POWER_LIMIT = gauge("gpu_power_limit_watts", DEVICE, "Power limit that is enforced now.")
GPU_ENERGY = counter(
    "gpu_energy_joules",
    (*DEVICE, "origin"),
    "Energy since the driver was loaded; origin is the device's counter.",
)
GPU_CLOCKS_LIMITED = gauge(
    "gpu_clocks_limited", (*DEVICE, "reason"), "Whether clocks are held down for this reason now."
)
GPU_SLOWED = gauge(
    "gpu_clocks_limited_by_fault",
    DEVICE,
    "Whether clocks are held down by heat or the power supply now, for any of those reasons.",
)
GPU_XID = counter("gpu_xid_errors", (*DEVICE, "xid"), "Xid errors seen since the daemon started.")
GPU_XID_LAST = gauge(
    "gpu_xid_last_timestamp_seconds", (*DEVICE, "xid"), "When this Xid was last seen, Unix time."
)
GPU_ECC = counter(
    "gpu_ecc_errors", (*DEVICE, "kind"), "ECC errors since the driver was loaded, corrected or uncorrected."
)
GPU_PCIE = counter("gpu_pcie_bytes", (*DEVICE, "direction"), "Traffic over PCIe; only with nvml.links.")
GPU_NVLINK = counter("gpu_nvlink_bytes", (*DEVICE, "direction"), "Traffic over NVLink; only with nvml.links.")
GPU_FIRMWARE = info("gpu_firmware", (*DEVICE, "part", "version"), "Firmware that a part of the device runs.")
GPU_PARTITIONING = info(
    "gpu_partitioning",
    (*DEVICE, "compute", "memory"),
    "How an AMD device is divided: SPX to CPX, NPS1 to NPS8.",
)
GPU_MIG = info(
    "gpu_mig",
    (*DEVICE, "parent_uuid", "profile"),
    "Which GPU a MIG slice is cut from, and its profile; gpu is the GPU's index and the GPU instance, 0:3.",
)
GPU_MIG_ENABLED = gauge(
    "gpu_mig_enabled",
    (*DEVICE, "mode"),
    "Whether a GPU is divided by MIG: current, and pending after its next reset; absent where neither.",
)
GPU_MIG_SLICES = gauge(
    "gpu_mig_slices",
    DEVICE,
    "Slices of a GPU in MIG mode; 0: nothing can be served on it. Absent while they cannot be listed.",
)

FAMILIES: tuple[Family, ...] = (
    GPU_INFO,
    GPU_ORIGIN,
    GPU_HEALTHY,
    GPUS,
    GPUS_EXPECTED,
    GPU_UP,
    GPU_STATE,
    GPU_MEMORY_TOTAL,
    GPU_MEMORY_USED,
    GPU_MEMORY_FREE,
    GPU_MEMORY_RESERVED,
    GPU_MEMORY_HELD,
    GPU_GTT_TOTAL,
    GPU_GTT_USED,
    GPU_VISIBLE_TOTAL,
    GPU_VISIBLE_USED,
    GPU_UTILIZATION,
    GPU_BANDWIDTH,
    GPU_TEMPERATURE,
    GPU_POWER,
    GPU_POWER_LIMIT,
    GPU_ENERGY,
    GPU_CLOCKS_LIMITED,
    GPU_SLOWED,
    GPU_XID,
    GPU_XID_LAST,
    GPU_ECC,
    GPU_PCIE,
    GPU_NVLINK,
    GPU_FIRMWARE,
    GPU_PARTITIONING,
    GPU_MIG,
    GPU_MIG_ENABLED,
    GPU_MIG_SLICES,
)
