"""Every metric family of this exporter: name, type, labels, meaning. docs/METRICS.md is generated from it.

Conventions: base units; an unknown value is an absent series; `gpu` is the driver's index as text and `uuid`
its identifier verbatim, together on every device series; what only describes stands on `…_info`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; `name` is as Prometheus stores it (`…_total`, `…_info`)."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


DEVICE = ("gpu", "uuid")
DEPLOYMENT = ("deployment",)


def _gauge(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"deepseek_{name}", Kind.GAUGE, labels, text)


def _counter(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"deepseek_{name}_total", Kind.COUNTER, labels, text)


def _info(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"deepseek_{name}_info", Kind.INFO, labels, text)


GPU_INFO = _info(
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
    "What a device is; memory_kind is dedicated, unified (also the processor's), mig or partition.",
)
GPUS = _gauge("gpus", ("vendor",), "Devices that the driver lists now.")
GPUS_EXPECTED = _gauge(
    "gpus_expected", (), "Devices that this host should have: configured, else ever seen here."
)
GPU_UP = _gauge(
    "gpu_up",
    DEVICE,
    "Whether the device answers, or sleeps unused; 0 for one that is lost, stalled or failing.",
)
GPU_STATE = _gauge(
    "gpu_state",
    (*DEVICE, "state"),
    "1 for the present state: up, suspended, stalled, lost, error, no_permission, released, driver_down.",
)
GPU_MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", DEVICE, "Device memory; total = used + free + reserved.")
GPU_MEMORY_USED = _gauge(
    "gpu_memory_used_bytes",
    DEVICE,
    "Device memory in use, without what the driver reserves where it says so.",
)
GPU_MEMORY_FREE = _gauge("gpu_memory_free_bytes", DEVICE, "Device memory that is free.")
GPU_MEMORY_RESERVED = _gauge(
    "gpu_memory_reserved_bytes",
    DEVICE,
    "Device memory that the driver keeps for itself; absent on old drivers.",
)
GPU_MEMORY_HELD = _gauge(
    "gpu_memory_held_bytes",
    (*DEVICE, "holder", "holder_kind"),
    "Used device memory by holder (deployment, other, unattributed); sums to used.",
)
GPU_GTT_TOTAL = _gauge(
    "gpu_gtt_total_bytes", DEVICE, "RAM that an AMD device may map; of a unified one, part of its memory."
)
GPU_GTT_USED = _gauge("gpu_gtt_used_bytes", DEVICE, "RAM that an AMD device has mapped.")
GPU_VISIBLE_TOTAL = _gauge(
    "gpu_visible_memory_total_bytes", DEVICE, "Device memory that the processor can reach directly."
)
GPU_VISIBLE_USED = _gauge(
    "gpu_visible_memory_used_bytes", DEVICE, "Of the memory that the processor can reach, what is in use."
)
GPU_UTILIZATION = _gauge("gpu_utilization_ratio", DEVICE, "Share of time in which a kernel ran.")
GPU_BANDWIDTH = _gauge(
    "gpu_memory_bandwidth_utilization_ratio",
    DEVICE,
    "Share of time in which device memory was read or written.",
)
GPU_TEMPERATURE = _gauge(
    "gpu_temperature_celsius", (*DEVICE, "sensor"), "Temperature by sensor: gpu, memory; edge, junction, mem."
)
GPU_POWER = _gauge("gpu_power_watts", DEVICE, "Power draw, averaged by the driver where it can.")
GPU_POWER_LIMIT = _gauge("gpu_power_limit_watts", DEVICE, "Power limit that is enforced now.")
GPU_ENERGY = _counter(
    "gpu_energy_joules",
    (*DEVICE, "origin"),
    "Energy since the driver was loaded; origin is the device's counter.",
)
GPU_CLOCKS_LIMITED = _gauge(
    "gpu_clocks_limited", (*DEVICE, "reason"), "Whether clocks are held down for this reason now."
)
GPU_XID = _counter("gpu_xid_errors", (*DEVICE, "xid"), "Xid errors seen since the daemon started.")
GPU_XID_LAST = _gauge(
    "gpu_xid_last_timestamp_seconds", (*DEVICE, "xid"), "When this Xid was last seen, Unix time."
)
GPU_ECC = _counter(
    "gpu_ecc_errors", (*DEVICE, "kind"), "ECC errors since the driver was loaded, corrected or uncorrected."
)
GPU_PCIE = _counter("gpu_pcie_bytes", (*DEVICE, "direction"), "Traffic over PCIe; only with nvml.links.")
GPU_NVLINK = _counter(
    "gpu_nvlink_bytes", (*DEVICE, "direction"), "Traffic over NVLink; only with nvml.links."
)
GPU_FIRMWARE = _info("gpu_firmware", (*DEVICE, "part", "version"), "Firmware that a part of the device runs.")
GPU_PARTITIONING = _info(
    "gpu_partitioning",
    (*DEVICE, "compute", "memory"),
    "How an AMD device is divided: SPX to CPX, NPS1 to NPS8.",
)

HOST_TOTAL = _gauge(
    "host_memory_total_bytes", (), "RAM of this host, or of the container that confines the exporter."
)
HOST_AVAILABLE = _gauge(
    "host_memory_available_bytes",
    (),
    "RAM that can be had without swapping; mapped weights count as available.",
)
HOST_HELD = _gauge(
    "host_memory_held_bytes",
    ("holder", "kind"),
    "RAM by holder and kind of page: anonymous, file, shared, hugepages.",
)
HOST_SWAP_TOTAL = _gauge("host_swap_total_bytes", (), "Swap space.")
HOST_SWAP_USED = _gauge("host_swap_used_bytes", (), "Swap space in use.")
HOST_HUGEPAGES_TOTAL = _gauge("host_hugepages_total_bytes", (), "RAM set aside for huge pages.")
HOST_HUGEPAGES_FREE = _gauge("host_hugepages_free_bytes", (), "RAM set aside for huge pages and not in use.")
HOST_SHARED = _gauge("host_shared_memory_bytes", (), "Shared memory and tmpfs; not reclaimable.")
HOST_PRESSURE = _counter(
    "host_memory_pressure_seconds",
    ("scope",),
    "Time in which some or all (full) tasks waited for memory, from PSI.",
)
HOST_OOM_KILLS = _counter("host_oom_kills", (), "Processes that the kernel killed for want of memory.")
HOST_NUMA_FREE = _gauge("host_numa_memory_free_bytes", ("node",), "Free RAM of a NUMA node.")
HOST_NUMA_TOTAL = _gauge("host_numa_memory_total_bytes", ("node",), "RAM of a NUMA node.")
HOST_CPU = _info("host_cpu", ("model", "sockets", "cores", "threads"), "What the processors are.")

DEPLOYMENT_INFO = _info(
    "deployment",
    (
        *DEPLOYMENT,
        "engine",
        "engine_version",
        "model",
        "served_model",
        "architecture",
        "quantization",
        "kv_cache_dtype",
        "tp",
        "pp",
        "dp",
        "ep",
        "speculative",
        "node_rank",
        "origin",
    ),
    "What a deployment is; model is the hub id, origin is declared or discovered.",
)
DEPLOYMENT_UP = _gauge(
    "deployment_up", DEPLOYMENT, "Whether the engine answers; absent while it has no endpoint to ask."
)
DEPLOYMENTS_RUNNING = _gauge(
    "deployments_running", (), "Deployments whose processes exist; absent while processes cannot be read."
)
DEPLOYMENT_START = _gauge(
    "deployment_start_time_seconds", DEPLOYMENT, "When its first process started, Unix time."
)
DEPLOYMENT_STATE = _gauge(
    "deployment_state",
    (*DEPLOYMENT, "state"),
    "1 for the present state: declared_only (not running), loading, warm, sleeping, unreachable,"
    " orphaned (its server is gone), unknown (no expectation).",
)
WEIGHTS_RESIDENT = _gauge(
    "deployment_weights_resident_ratio", DEPLOYMENT, "How much of the mapped weights is in RAM."
)
MATCHES_DECLARATION = _gauge(
    "deployment_matches_declaration",
    (*DEPLOYMENT, "field"),
    "0 where what runs differs from what was declared: model, quantization, tp, pp, dp, limits.",
)
EXPECTED_GPU = _gauge(
    "expected_gpu_memory_bytes",
    (*DEPLOYMENT, *DEVICE, "component"),
    "What the engine will hold on a device once warm; the middle where a component is only estimated.",
)
EXPECTED_HOST = _gauge(
    "expected_host_memory_bytes",
    (*DEPLOYMENT, "component"),
    "What the engine will hold in RAM once warm, mapped weights included.",
)
EXPECTED_BASIS = _info(
    "expected_basis",
    (*DEPLOYMENT, "component", "basis"),
    "Where an expected component comes from: engine, checkpoint, architecture, estimate.",
)
DEVIATION = _gauge(
    "gpu_memory_deviation_bytes", (*DEPLOYMENT, *DEVICE), "What a running deployment holds - what it should."
)
DEVIATION_RATIO = _gauge(
    "gpu_memory_deviation_ratio", (*DEPLOYMENT, *DEVICE), "Deviation / what it should hold."
)
DEVIATION_TOLERANCE = _gauge(
    "gpu_memory_deviation_tolerance_bytes",
    (*DEPLOYMENT, *DEVICE),
    "By how much the two may differ: tight where bytes are counted, wide where they are estimated.",
)
KV_CAPACITY = _gauge(
    "kv_cache_capacity_tokens",
    DEPLOYMENT,
    "Tokens that the KV cache can hold, by the engine's word where it gives one.",
)
KV_USED = _gauge("kv_cache_used_tokens", DEPLOYMENT, "Tokens in the KV cache that requests use now.")
KV_USAGE = _gauge("kv_cache_usage_ratio", DEPLOYMENT, "Share of the KV cache that requests use now.")
KV_BYTES_PER_TOKEN = _gauge(
    "kv_cache_bytes_per_token", DEPLOYMENT, "KV cache of one token on one rank, bytes."
)
KV_DEMAND = _gauge(
    "kv_cache_demand_tokens", DEPLOYMENT, "Tokens that the configured sequences at full length would need."
)
KV_PLANNED = _gauge(
    "kv_cache_planned_tokens",
    DEPLOYMENT,
    "Tokens that the KV cache must hold by the operator's plan: planned_sequences x planned_context.",
)
KV_SHORTFALL = _gauge(
    "kv_cache_plan_shortfall_tokens",
    DEPLOYMENT,
    "Planned tokens - capacity, by the engine's word or else the optimistic end of the estimate;"
    " above 0 the plan cannot be met.",
)
KV_OVERCOMMIT = _gauge("kv_cache_overcommit_ratio", DEPLOYMENT, "Demand / capacity of the KV cache.")
MAX_CONTEXT = _gauge("deployment_max_context_tokens", DEPLOYMENT, "Longest request, tokens.")
MAX_SEQUENCES = _gauge("deployment_max_sequences", DEPLOYMENT, "Requests that may run at once.")
FULL_LENGTH = _gauge(
    "deployment_full_length_sequences", DEPLOYMENT, "Requests of full length that the KV cache holds at once."
)
REQUESTS_RUNNING = _gauge("requests_running", DEPLOYMENT, "Requests that the engine works on.")
REQUESTS_WAITING = _gauge("requests_waiting", DEPLOYMENT, "Requests that wait for the engine.")
PREEMPTIONS = _counter(
    "preemptions", DEPLOYMENT, "Requests put back for want of KV cache, since the engine's start."
)
TOKENS = _counter(
    "tokens",
    (*DEPLOYMENT, "kind"),
    "Tokens since the engine's start: prompt, prompt_cached, generated, draft_accepted, draft_rejected.",
)

CAPACITY = _gauge(
    "gpu_memory_capacity_bytes", DEVICE, "What can be promised: total - reserved - safety margin."
)
COMMITTED = _gauge(
    "gpu_memory_committed_bytes",
    (*DEVICE, "bound"),
    "What deployments hold, may still take or must find free, plus what others hold; estimates at this end.",
)
HEADROOM = _gauge(
    "gpu_memory_headroom_bytes", (*DEVICE, "bound"), "Capacity - committed; negative: overcommitted."
)
OVERCOMMIT = _gauge("gpu_memory_overcommit_ratio", (*DEVICE, "bound"), "Committed / capacity.")
OVERCOMMIT_OPTIONAL = _gauge(
    "gpu_memory_overcommit_optional_ratio",
    (*DEVICE, "bound"),
    "Overcommit ratio if the largest optional deployment that does not run started; absent without one.",
)
OVERCOMMIT_SETTLED = _gauge(
    "gpu_memory_overcommit_settled_ratio",
    DEVICE,
    "Overcommit ratio (low) without deployments that a younger generation of themselves replaces;"
    " absent while no roll-out goes on.",
)
ROLLOUT_OVERLAP = _gauge(
    "gpu_rollout_overlap_bytes",
    DEVICE,
    "Committed bytes of deployments that a younger generation of themselves replaces.",
)
PENDING = _gauge(
    "gpu_memory_pending_bytes",
    (*DEVICE, "bound"),
    "Of the committed bytes, those that are still to be loaded.",
)
RECLAIMABLE = _gauge(
    "gpu_memory_reclaimable_bytes", DEVICE, "Held by a KV pool and not in use by any request now."
)
HOST_CAPACITY = _gauge("host_memory_capacity_bytes", (), "RAM that can be promised: total - safety margin.")
HOST_COMMITTED = _gauge("host_memory_committed_bytes", ("bound",), "The same as for devices, for RAM.")
HOST_HEADROOM = _gauge("host_memory_headroom_bytes", ("bound",), "Capacity - committed of RAM.")
HOST_OVERCOMMIT = _gauge("host_memory_overcommit_ratio", ("bound",), "Committed / capacity of RAM.")
THRESHOLD = _gauge("threshold", ("name",), "Alert thresholds in force; rules and boards compare with them.")
ALERT_ACTIVE = _gauge(
    "alert_active",
    ("alert", "severity", "subject"),
    "The daemon's own evaluation: 1 while an alert is pending or firing.",
)

BUILD_INFO = _info("exporter_build", ("version", "revision", "python"), "What is running.")
DEMO_INFO = _info(
    "exporter_demo",
    ("profile",),
    "A recorded host is played: nothing here is this machine's. Absent where the host is real.",
)
SOURCE_UP = _gauge("exporter_source_up", ("source",), "Whether the source answers.")
SOURCE_STATE = _gauge(
    "exporter_source_state", ("source", "state"), "1 for the present state; up, or why not."
)
SOURCE_EXPECTED = _gauge(
    "exporter_source_expected",
    ("source",),
    "Whether this host should have the source, so that silence is a fault.",
)
SOURCE_LAST = _gauge(
    "exporter_source_last_success_timestamp_seconds", ("source",), "When the source last answered, Unix time."
)
SOURCE_DURATION = _gauge("exporter_source_duration_seconds", ("source",), "How long the last reading took.")
SOURCE_ERRORS = _counter(
    "exporter_source_errors", ("source", "reason"), "Errors of a source by reason, since the daemon started."
)
WORKER_RESTARTS = _counter(
    "exporter_worker_restarts", ("source",), "Worker processes given up since the start."
)
WORKERS_STUCK = _gauge(
    "exporter_workers_stuck", (), "Worker processes inside a driver call that does not return."
)
SNAPSHOT_TIME = _gauge("exporter_snapshot_timestamp_seconds", (), "When the values were read, Unix time.")
SNAPSHOT_DURATION = _gauge("exporter_snapshot_duration_seconds", (), "How long the reading took.")
SERIES = _gauge("exporter_series", (), "Series in this exposition, process metrics not counted.")
SERIES_DROPPED = _counter(
    "exporter_series_dropped", ("family",), "Series left out because a family had too many, since the start."
)
PLAN_ERROR = _gauge(
    "exporter_plan_error_ratio",
    (*DEPLOYMENT, "component"),
    "Expected / observed - 1, where the engine itself says what it has.",
)
RELOAD_SUCCESSFUL = _gauge(
    "exporter_config_last_reload_successful", (), "Whether the last reading of the configuration succeeded."
)
RELOAD_TIME = _gauge(
    "exporter_config_last_reload_timestamp_seconds", (), "When the configuration was last read, Unix time."
)
NOTIFICATIONS_UP = _gauge(
    "exporter_notifications_up", ("alertmanager",), "Whether Alertmanager took the daemon's last push."
)
NOTIFICATIONS = _counter(
    "exporter_notifications",
    ("alertmanager", "outcome"),
    "Pushes of the daemon's alerts by outcome, sent or failed, since it started.",
)
CLOCK_STEPS = _counter(
    "exporter_clock_steps", (), "Steps of the wall clock noticed since the daemon started."
)

SECTIONS: dict[str, tuple[Family, ...]] = {
    "Devices": (
        GPU_INFO,
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
        GPU_XID,
        GPU_XID_LAST,
        GPU_ECC,
        GPU_PCIE,
        GPU_NVLINK,
        GPU_FIRMWARE,
        GPU_PARTITIONING,
    ),
    "Host": (
        HOST_TOTAL,
        HOST_AVAILABLE,
        HOST_HELD,
        HOST_SWAP_TOTAL,
        HOST_SWAP_USED,
        HOST_HUGEPAGES_TOTAL,
        HOST_HUGEPAGES_FREE,
        HOST_SHARED,
        HOST_PRESSURE,
        HOST_OOM_KILLS,
        HOST_NUMA_FREE,
        HOST_NUMA_TOTAL,
        HOST_CPU,
    ),
    "Deployments": (
        DEPLOYMENTS_RUNNING,
        DEPLOYMENT_INFO,
        DEPLOYMENT_UP,
        DEPLOYMENT_START,
        DEPLOYMENT_STATE,
        WEIGHTS_RESIDENT,
        MATCHES_DECLARATION,
        EXPECTED_GPU,
        EXPECTED_HOST,
        EXPECTED_BASIS,
        DEVIATION,
        DEVIATION_RATIO,
        DEVIATION_TOLERANCE,
        KV_CAPACITY,
        KV_USED,
        KV_USAGE,
        KV_BYTES_PER_TOKEN,
        KV_DEMAND,
        KV_OVERCOMMIT,
        KV_PLANNED,
        KV_SHORTFALL,
        MAX_CONTEXT,
        MAX_SEQUENCES,
        FULL_LENGTH,
        REQUESTS_RUNNING,
        REQUESTS_WAITING,
        PREEMPTIONS,
        TOKENS,
    ),
    "Capacity": (
        CAPACITY,
        COMMITTED,
        HEADROOM,
        OVERCOMMIT,
        OVERCOMMIT_OPTIONAL,
        OVERCOMMIT_SETTLED,
        ROLLOUT_OVERLAP,
        PENDING,
        RECLAIMABLE,
        HOST_CAPACITY,
        HOST_COMMITTED,
        HOST_HEADROOM,
        HOST_OVERCOMMIT,
        THRESHOLD,
        ALERT_ACTIVE,
    ),
    "The exporter itself": (
        BUILD_INFO,
        DEMO_INFO,
        SOURCE_UP,
        SOURCE_STATE,
        SOURCE_EXPECTED,
        SOURCE_LAST,
        SOURCE_DURATION,
        SOURCE_ERRORS,
        WORKER_RESTARTS,
        WORKERS_STUCK,
        SNAPSHOT_TIME,
        SNAPSHOT_DURATION,
        SERIES,
        SERIES_DROPPED,
        PLAN_ERROR,
        RELOAD_SUCCESSFUL,
        RELOAD_TIME,
        NOTIFICATIONS_UP,
        NOTIFICATIONS,
        CLOCK_STEPS,
    ),
}
"""The table, by section of docs/METRICS.md."""

FAMILIES: tuple[Family, ...] = tuple(family for section in SECTIONS.values() for family in section)
