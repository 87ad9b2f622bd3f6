"""Families of the host: RAM, swap, pressure, NUMA nodes, processors."""

from __future__ import annotations

from exporter.exposition.families.family import Family, counter, gauge, info

HOST_TOTAL = gauge(
    "host_memory_total_bytes", (), "RAM of this host, or of the container that confines the exporter."
)
HOST_AVAILABLE = gauge(
    "host_memory_available_bytes",
    (),
    "RAM that can be had without swapping; mapped weights count as available.",
)
HOST_HELD = gauge(
    "host_memory_held_bytes",
    ("holder", "kind"),
    "RAM by holder and kind of page: anonymous, file, shared, hugepages.",
)
HOST_SWAP_TOTAL = gauge("host_swap_total_bytes", (), "Swap space.")
HOST_SWAP_USED = gauge("host_swap_used_bytes", (), "Swap space in use.")
HOST_HUGEPAGES_TOTAL = gauge("host_hugepages_total_bytes", (), "RAM set aside for huge pages.")
HOST_HUGEPAGES_FREE = gauge("host_hugepages_free_bytes", (), "RAM set aside for huge pages and not in use.")
HOST_SHARED = gauge("host_shared_memory_bytes", (), "Shared memory and tmpfs; not reclaimable.")
HOST_PRESSURE = counter(
    "host_memory_pressure_seconds",
    ("scope",),
    "Time in which some or all (full) tasks waited for memory, from PSI.",
)
HOST_OOM_KILLS = counter("host_oom_kills", (), "Processes that the kernel killed for want of memory.")
HOST_NUMA_FREE = gauge("host_numa_memory_free_bytes", ("node",), "Free RAM of a NUMA node.")
HOST_NUMA_TOTAL = gauge("host_numa_memory_total_bytes", ("node",), "RAM of a NUMA node.")
HOST_NUMA_AVAILABLE = gauge(
    "host_numa_memory_available_bytes",
    ("node",),
    "RAM of a NUMA node that can be had without swapping: free, and page cache that can be dropped.",
)
HOST_BANDWIDTH = gauge(
    "host_memory_bandwidth_bytes_per_second",
    ("basis",),
    "What RAM of all sockets can give at the most; basis: configured, dmi (modules), edac (channels in use),"
    " processor (all its channels).",
)
HOST_CPU = info("host_cpu", ("model", "sockets", "cores", "threads"), "What the processors are.")

FAMILIES: tuple[Family, ...] = (
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
    HOST_NUMA_AVAILABLE,
    HOST_BANDWIDTH,
    HOST_CPU,
)
