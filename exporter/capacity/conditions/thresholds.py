"""The limits that conditions compare with; `exporter.settings.options` has the option of each."""

from __future__ import annotations

from exporter.capacity.terms import Threshold

THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        name="vram_overcommit_ratio",
        default=1.0,
        unit="ratio",
        meaning="A device is overcommitted when committed / capacity is above this.",
    ),
    Threshold(
        name="host_memory_overcommit_ratio",
        default=1.0,
        unit="ratio",
        meaning="A host's RAM is overcommitted when committed / capacity is above this.",
    ),
    Threshold(
        # A CUDA context is about half a GiB; a stranger that matters takes more.
        name="foreign_vram_bytes",
        default=2**30,
        unit="bytes",
        meaning="Others may hold this much of a device that serves.",
    ),
    Threshold(
        name="host_memory_pressure_ratio",
        default=0.1,
        unit="ratio",
        meaning="RAM is short when all tasks wait for it for more than this share of five minutes.",
    ),
    Threshold(
        # The kernel moves idle daemons' pages to swap on healthy hosts too: some 100 MiB are no shortage.
        name="host_swap_used_bytes",
        default=2**30,
        unit="bytes",
        meaning="RAM is short when more than this is in swap while a deployment runs.",
    ),
    Threshold(
        name="confined_memory_overcommit_ratio",
        default=1.0,
        unit="ratio",
        meaning="A cgroup, or NUMA nodes, are overcommitted when committed / capacity is above this.",
    ),
    Threshold(
        name="deployment_memory_pressure_ratio",
        default=0.1,
        unit="ratio",
        meaning="A confined deployment is short when all its tasks wait for RAM for more than this share.",
    ),
    Threshold(
        # Pages of its start-up that an engine never reads again; of weights, a GiB is a tenth of each token.
        name="deployment_swapped_bytes",
        default=2**28,
        unit="bytes",
        meaning="A deployment is in swap when more of its own memory than this is.",
    ),
    Threshold(
        # Several evaluations of any usual rule interval; what follows is kept by the alert itself.
        name="gpu_error_recent_seconds",
        default=300.0,
        unit="seconds",
        meaning="An Xid starts its alert while it is at most this old.",
    ),
    Threshold(
        name="active_utilization_ratio",
        default=0.05,
        unit="ratio",
        meaning="A device works when its utilization is above this.",
    ),
    Threshold(
        # Twelve polls of the default 5 s: a slow sweep or one restart of a worker is no blindness.
        name="source_stale_seconds",
        default=60.0,
        unit="seconds",
        meaning="A source is blind when its last success is older than this at the latest snapshot.",
    ),
    Threshold(
        name="vram_overcommit_near_ratio",
        default=0.97,
        unit="ratio",
        meaning="What is still to be loaded is told when committed / capacity (high end) is above this.",
    ),
    Threshold(
        # Below this, slow drift and rounding of the drivers.
        name="vram_growth_bytes",
        default=2**28,
        unit="bytes",
        meaning="Growth that is forecast was at least this much within six hours.",
    ),
    Threshold(
        # The longest load that is usual: 671B from a network file system.
        name="rollout_seconds",
        default=3600.0,
        unit="seconds",
        meaning="Two generations of a deployment on a device are a roll-out until the younger is this old.",
    ),
    Threshold(
        name="deviation_exact_ratio",
        default=0.03,
        unit="ratio",
        meaning="Of what is counted, this share may be held beside it.",
    ),
    Threshold(
        name="deviation_exact_bytes",
        default=2**29,
        unit="bytes",
        meaning="And this much, where everything is counted.",
    ),
    Threshold(
        name="deviation_estimate_ratio",
        default=0.08,
        unit="ratio",
        meaning="Of what is estimated, this share may be held beside it.",
    ),
    Threshold(
        name="deviation_estimate_bytes",
        default=2**31,
        unit="bytes",
        meaning="And this much, where something is estimated.",
    ),
    Threshold(
        # FP8 against 4 bit is 0.45 of the weights; an estimate is never that wrong (docs/METHOD.md).
        name="vram_below_expected_ratio",
        default=0.3,
        unit="ratio",
        meaning="A deployment holds far too little when this share of the expected is missing.",
    ),
    Threshold(
        name="load_seconds",
        default=3600.0,
        unit="seconds",
        meaning="After this long a deployment should have loaded.",
    ),
    Threshold(
        # What is mapped stays whole where it fits: 0.99 was measured (docs/METHOD.md).
        name="weights_resident_ratio",
        default=0.95,
        unit="ratio",
        meaning="Mapped weights are evicted when less of them than this is in RAM.",
    ),
    Threshold(
        name="kv_cache_saturated_ratio",
        default=0.95,
        unit="ratio",
        meaning="A KV cache is full above this.",
    ),
    Threshold(
        # Of a speed that headers and acknowledgements share: payload ends a few per cent below.
        name="link_saturated_ratio",
        default=0.9,
        unit="ratio",
        meaning="A link between nodes is full above this share of its speed.",
    ),
    Threshold(
        # A GPU of one node of eight B200 generates 199 with 64 requests at once (ML.ENERGY leaderboard
        # 0cd52da, DeepSeek-R1-0528, gpqa: 1,595 for all eight).
        name="link_tokens_per_second",
        default=200.0,
        unit="tokens/s",
        meaning="A link between nodes that allows less for each GPU of the deployment is too slow for it.",
    ),
    Threshold(
        name="plan_error_ratio",
        default=0.1,
        unit="ratio",
        meaning="An expectation is off when it differs by more from the engine's own figure.",
    ),
    Threshold(
        # As node-mixin's NodeFilesystemAlmostOutOfSpace; alone it would tell of 1.5 TB on a disk of 30.
        name="model_store_free_ratio",
        default=0.05,
        unit="ratio",
        meaning="A store is full when less than this share of its disk is free, and",
    ),
    Threshold(
        # No checkpoint of 671B has come in less room than 404 GB; a quarter of that is no room at all.
        name="model_store_free_bytes",
        default=100 * 2**30,
        unit="bytes",
        meaning="less than this.",
    ),
    Threshold(
        # Logs and metrics of a host write a few GiB a day.
        name="model_store_growth_bytes",
        default=10 * 2**30,
        unit="bytes",
        meaning="Growth of a disk that is forecast was at least this much within 24 hours.",
    ),
    Threshold(
        # Sizes of downloads are known to within their headers and tokenizer.
        name="model_store_download_margin_bytes",
        default=2**30,
        unit="bytes",
        meaning="A running download must leave this much free.",
    ),
    Threshold(
        name="exhaustion_warning_days",
        default=7.0,
        unit="days",
        meaning="Exhaustion within this many days opens a ticket.",
    ),
    Threshold(
        name="exhaustion_info_days",
        default=30.0,
        unit="days",
        meaning="Exhaustion within this many days is shown.",
    ),
    Threshold(
        # One step gives at most 0.754 over 14 days, 3p(1-p)·n²/(n²-1), and weekly waves give less.
        name="exhaustion_fit_r2",
        default=0.8,
        unit="ratio",
        meaning="A forecast counts when its line explains this share of the variance.",
    ),
)
