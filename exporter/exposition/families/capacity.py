"""Families of capacity: what is committed, what is left, what alerts."""

from __future__ import annotations

from exporter.exposition.families.family import DEVICE, Family, gauge

CAPACITY = gauge(
    "gpu_memory_capacity_bytes", DEVICE, "What can be promised: total - reserved - safety margin."
)
COMMITTED = gauge(
    "gpu_memory_committed_bytes",
    (*DEVICE, "bound"),
    "What deployments hold, may still take or must find free, plus what others hold; estimates at this end.",
)
HEADROOM = gauge(
    "gpu_memory_headroom_bytes", (*DEVICE, "bound"), "Capacity - committed; negative: overcommitted."
)
OVERCOMMIT = gauge("gpu_memory_overcommit_ratio", (*DEVICE, "bound"), "Committed / capacity.")
OVERCOMMIT_OPTIONAL = gauge(
    "gpu_memory_overcommit_optional_ratio",
    (*DEVICE, "bound"),
    "Overcommit ratio if the largest optional deployment that does not run started; absent without one.",
)
OVERCOMMIT_PENDING = gauge(
    "gpu_memory_overcommit_pending_ratio",
    (*DEVICE, "bound"),
    "Overcommit ratio while something is still to be loaded; absent where nothing is.",
)
OVERCOMMIT_SETTLED = gauge(
    "gpu_memory_overcommit_settled_ratio",
    DEVICE,
    "Overcommit ratio (low) without deployments that a younger generation of themselves replaces;"
    " absent while no roll-out goes on.",
)
ROLLOUT_OVERLAP = gauge(
    "gpu_rollout_overlap_bytes",
    DEVICE,
    "Committed bytes of deployments that a younger generation of themselves replaces.",
)
PENDING = gauge(
    "gpu_memory_pending_bytes",
    (*DEVICE, "bound"),
    "Of the committed bytes, those that are still to be loaded.",
)
RECLAIMABLE = gauge(
    "gpu_memory_reclaimable_bytes", DEVICE, "Held by a KV pool and not in use by any request now."
)
DEVICES_CAPACITY = gauge(
    "host_gpu_memory_capacity_bytes", (), "What all devices of the host together can give."
)
DEVICES_COMMITTED = gauge(
    "host_gpu_memory_committed_bytes", ("bound",), "What of all devices of the host together is committed."
)
DEVICES_HEADROOM = gauge(
    "host_gpu_memory_headroom_min_bytes", ("bound",), "Headroom of the host's fullest device."
)
DEVICES_OVERCOMMIT = gauge(
    "host_gpu_memory_overcommit_max_ratio", ("bound",), "Overcommit ratio of the host's fullest device."
)
FOREIGN = gauge(
    "gpu_memory_foreign_bytes",
    DEVICE,
    "Held by others than deployments, of a device on which a deployment holds memory or should.",
)
HOST_CAPACITY = gauge("host_memory_capacity_bytes", (), "RAM that can be promised: total - safety margin.")
HOST_COMMITTED = gauge("host_memory_committed_bytes", ("bound",), "The same as for devices, for RAM.")
HOST_HEADROOM = gauge("host_memory_headroom_bytes", ("bound",), "Capacity - committed of RAM.")
HOST_OVERCOMMIT = gauge("host_memory_overcommit_ratio", ("bound",), "Committed / capacity of RAM.")
THRESHOLD = gauge("threshold", ("name",), "Alert thresholds in force; rules and boards compare with them.")
ALERT_ACTIVE = gauge(
    "alert_active",
    ("alert", "severity", "subject"),
    "The daemon's own evaluation: 1 while an alert is pending or firing.",
)

FAMILIES: tuple[Family, ...] = (
    CAPACITY,
    COMMITTED,
    HEADROOM,
    OVERCOMMIT,
    OVERCOMMIT_OPTIONAL,
    OVERCOMMIT_PENDING,
    OVERCOMMIT_SETTLED,
    ROLLOUT_OVERLAP,
    PENDING,
    RECLAIMABLE,
    FOREIGN,
    DEVICES_CAPACITY,
    DEVICES_COMMITTED,
    DEVICES_HEADROOM,
    DEVICES_OVERCOMMIT,
    HOST_CAPACITY,
    HOST_COMMITTED,
    HOST_HEADROOM,
    HOST_OVERCOMMIT,
    THRESHOLD,
    ALERT_ACTIVE,
)
