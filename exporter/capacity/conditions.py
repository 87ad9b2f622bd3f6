"""What this exporter alerts on: the table of conditions, and of the thresholds that they compare with.

The terms are those of `exporter.capacity.terms`. Names, severities and durations follow docs/ALERTS.md.
"""

from __future__ import annotations

from exporter.capacity.terms import (
    Above,
    AgedAtMost,
    AllOf,
    AnyOf,
    Condition,
    EqualTo,
    Fact,
    Fold,
    Form,
    FromOutside,
    Grown,
    Labels,
    RateAbove,
    Series,
    Severity,
    Some,
    Subject,
    Threshold,
    Unless,
    Witness,
)

MINUTE = 60


def _prose(text: str) -> str:
    return " ".join(text.split())


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
)

HARDWARE_XIDS: dict[int, str] = {
    48: "double-bit ECC error",
    63: "row remapping or page retirement recorded",
    64: "row remapping or page retirement could not be recorded",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "high rate of single-bit ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "GSP did not answer in time",
    120: "GSP error",
}
"""Xids that speak of the device, not of the program on it (13, 31, 43 and 45 are usually the program's).

Source: NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors), catalogue of Xids.
"""

SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
"""Reasons of the clocks that are faults of cooling or supply (NVML API reference, nvmlClocksEventReasons).

`sw_power_cap` is none: a busy GPU runs at its power limit by design.
"""

RUNNING = ("loading", "warm", "sleeping", "unreachable", "orphaned", "unknown")
"""States of a deployment whose processes exist: all but `declared_only`."""

_BOUND_LOW: Labels = (("bound", "low"),)
_BOUND_HIGH: Labels = (("bound", "high"),)

_HELD = "deepseek_gpu_memory_held_bytes"
_XIDS = (("xid", tuple(str(code) for code in HARDWARE_XIDS)),)
_UNCORRECTED = Series("deepseek_gpu_ecc_errors_total", (("kind", "uncorrected"),))
_STALLED = Series("deepseek_host_memory_pressure_seconds_total", (("scope", "full"),))
_OOM_KILLS = Series("deepseek_host_oom_kills_total")
# Longer than the alert waits, else a single kill would be forgotten before it could be told.
_OOM_WINDOW_SECONDS = 15 * MINUTE

_IN_RAM = Fact("deployments", Series("deepseek_expected_host_memory_bytes"), Form.LABEL, "deployment")
_ON_DEVICE = Fact("deployments", Series("deepseek_expected_gpu_memory_bytes"), Form.LABEL, "deployment")

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekVramOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        expression=Above(Series("deepseek_gpu_memory_overcommit_ratio", _BOUND_LOW), "vram_overcommit_ratio"),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "GPU {gpu} of {host} is overcommitted at {value}: {committed} committed, {capacity} to give. "
            "Deployments: {deployments}."
        ),
        description=_prose(
            """
            What is loaded on this device, at its own limits, plus what others hold and what
            required deployments still need, exceeds what the device can give. Estimates count at
            their low end. The next allocation can fail with CUDA out of memory. First action: see
            who holds the memory (panel 'GPU memory by host and device'), then stop or move what
            does not belong there, or lower the context length, the number of sequences or the
            memory fraction of the newest deployment.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", _BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekVramOvercommitLikely",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=Above(
            Series("deepseek_gpu_memory_overcommit_ratio", _BOUND_HIGH), "vram_overcommit_ratio"
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "GPU {gpu} of {host} may be overcommitted, {value} at the high end of the estimates: {committed} "
            "committed, {capacity} to give. Deployments: {deployments}."
        ),
        description=_prose(
            """
            If what can only be estimated (activations, CUDA graphs, communication buffers) turns
            out at its high end, this device does not suffice for what is loaded and required on
            it. Nothing is certain to fail. First action: see how much room the estimates leave
            (panel 'GPU memory by host and device'), then lower the context length, the number of
            sequences or the memory fraction of one deployment, or move it.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", _BOUND_HIGH), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekForeignVram",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AllOf(
            (
                Above(
                    Series(
                        _HELD,
                        choices=(("holder_kind", ("other", "unattributed")),),
                        folded=("holder",),
                        fold=Fold.SUM,
                    ),
                    "foreign_vram_bytes",
                ),
                AnyOf(
                    (
                        Some(Series("deepseek_expected_gpu_memory_bytes")),
                        Some(Series(_HELD, (("holder_kind", "deployment"),))),
                    )
                ),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        witness=Witness(Series("deepseek_gpu_memory_total_bytes"), Subject.DEVICE),
        summary=(
            "GPU {gpu} of {host} has foreign memory: {other} of processes that belong to no deployment, "
            "{unattributed} of no known process. Deployments: {deployments}."
        ),
        description=_prose(
            """
            Memory of a device that serves, or is promised to a deployment, is held by others: a
            program of another user, an engine that was left over, or one that nobody declared.
            It is missing from what the deployments may take. First action: run 'nvidia-smi' on
            the host and stop or move what does not belong there; declare what does.
            """
        ),
        facts=(
            Fact("other", Series(_HELD, (("holder_kind", "other"),)), Form.BYTES),
            Fact("unattributed", Series(_HELD, (("holder_kind", "unattributed"),)), Form.BYTES),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekHostMemoryOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.HOST,
        expression=Above(
            Series("deepseek_host_memory_overcommit_ratio", _BOUND_LOW), "host_memory_overcommit_ratio"
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "RAM of {host} is overcommitted at {value}: {committed} committed, {capacity} to give, "
            "{available} available now. Deployments: {deployments}."
        ),
        description=_prose(
            """
            Weights, experts, KV caches and prompt caches in RAM, at the limits of their
            deployments, plus what others hold, exceed what this host can give. Weights will be
            evicted and read again from disk, or the kernel will kill a process. First action: see
            what is committed (panel 'RAM: committed, capacity and available'), then stop or move
            a deployment, choose a smaller quantization or a shorter context.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_host_memory_committed_bytes", _BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_host_memory_capacity_bytes"), Form.BYTES),
            Fact("available", Series("deepseek_host_memory_available_bytes"), Form.BYTES),
            _IN_RAM,
        ),
    ),
    Condition(
        name="DeepSeekHostMemoryPressure",
        severity=Severity.CRITICAL,
        subject=Subject.HOST,
        expression=AnyOf(
            (
                RateAbove(_STALLED, "host_memory_pressure_ratio", 5 * MINUTE),
                AllOf(
                    (
                        Above(Series("deepseek_host_swap_used_bytes"), "host_swap_used_bytes"),
                        Some(Series("deepseek_deployment_state", choices=(("state", RUNNING),))),
                    )
                ),
                Grown(_OOM_KILLS, _OOM_WINDOW_SECONDS),
            )
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witness=Witness(Series("deepseek_host_memory_total_bytes"), Subject.HOST),
        summary=(
            "RAM of {host} is short: all tasks waited for it {stalled} of the last 5 minutes, {swapped} are "
            "in swap, processes killed in the last 15 minutes: {kills}. Deployments: {deployments}."
        ),
        description=_prose(
            """
            The kernel says itself that RAM does not suffice: tasks stand still until pages are
            freed, memory went to swap while a deployment runs, or a process was killed. Answers
            slow down to the speed of the disk, or the engine is the next to be killed. First
            action: 'journalctl -k' names a process that was killed; then see who holds RAM (panel
            'RAM: committed, capacity and available') and stop or move what is not needed.
            """
        ),
        facts=(
            Fact("stalled", _STALLED, Form.SHARE, window_seconds=5 * MINUTE),
            Fact("swapped", Series("deepseek_host_swap_used_bytes"), Form.BYTES),
            Fact("kills", _OOM_KILLS, Form.COUNT, window_seconds=_OOM_WINDOW_SECONDS),
            _IN_RAM,
        ),
    ),
    Condition(
        name="DeepSeekGpuLost",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        # Released on purpose is no reason to page; a forgotten release is MonitoringBlind's to tell.
        expression=Unless(
            EqualTo(Series("deepseek_gpu_up"), 0),
            EqualTo(Series("deepseek_gpu_state", (("state", "released"),)), 1),
        ),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=0,
        # Else every restart of the daemon would tell people that the device is back.
        keeps_state=True,
        summary="GPU {gpu} ({uuid}) of {host} is lost: state {state}. Deployments: {deployments}.",
        description=_prose(
            """
            A device that this host has, by its inventory or its configuration, does not answer.
            Its memory figures are absent until it does, and capacity alerts of this device keep
            their last state meanwhile. First action: look for Xid messages of this device in the
            kernel log (journalctl -k), then drain the host and reset the device or restart the
            host.
            """
        ),
        facts=(Fact("state", Series("deepseek_gpu_state"), Form.LABEL, "state"), _ON_DEVICE),
    ),
    Condition(
        name="DeepSeekGpuErrors",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AnyOf(
            (
                # The driver counts, so errors during a restart of the daemon are seen after it.
                Grown(_UNCORRECTED, 10 * MINUTE),
                # Not the counter's growth: its series begins with the first Xid, at 1.
                AgedAtMost(
                    Series("deepseek_gpu_xid_last_timestamp_seconds", choices=_XIDS),
                    "gpu_error_recent_seconds",
                ),
            )
        ),
        for_seconds=0,
        keep_firing_for_seconds=60 * MINUTE,
        summary=(
            "GPU {gpu} ({uuid}) of {host} has hardware errors. Xid: {xids}; uncorrected ECC errors since the "
            "driver was loaded: {uncorrected}. Deployments: {deployments}."
        ),
        description=_prose(
            """
            The device reported an error of its memory, its links or its firmware that programs do
            not cause. What it computed meanwhile may be lost, and often the device is the next to
            fail. First action: look for the Xid in the kernel log (journalctl -k) and in the
            runbook, then drain the host and reset the device; when it comes again, have the
            device replaced.
            """
        ),
        facts=(
            Fact(
                "xids",
                Series("deepseek_gpu_xid_last_timestamp_seconds", choices=_XIDS),
                Form.LABEL,
                "xid",
                otherwise="none",
            ),
            Fact("uncorrected", _UNCORRECTED, Form.NUMBER),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekPowerLimited",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AllOf(
            (
                # A slowdown comes and goes within seconds, and so does work between two requests.
                EqualTo(
                    Series(
                        "deepseek_gpu_clocks_limited",
                        choices=(("reason", SLOWDOWNS),),
                        lately_seconds=2 * MINUTE,
                    ),
                    1,
                ),
                Above(
                    Series("deepseek_gpu_utilization_ratio", lately_seconds=2 * MINUTE),
                    "active_utilization_ratio",
                ),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        witness=Witness(Series("deepseek_gpu_utilization_ratio"), Subject.DEVICE),
        summary=(
            "GPU {gpu} of {host} is slowed down by {reasons}: {temperature} °C, {power} W of {limit} W. "
            "Deployments: {deployments}."
        ),
        description=_prose(
            """
            Heat or the power supply holds the clocks of a working device down, so every token
            takes longer, and a tensor-parallel group runs at the pace of its slowest device. The
            ordinary power cap does not count here. First action: compare the device's temperature
            with its neighbours'; look at fans, air flow and coolant for thermal reasons, at the
            power supplies and cables for the others.
            """
        ),
        facts=(
            Fact(
                "reasons",
                Series(
                    "deepseek_gpu_clocks_limited", choices=(("reason", SLOWDOWNS),), lately_seconds=2 * MINUTE
                ),
                Form.LABEL,
                "reason",
            ),
            Fact(
                "temperature",
                Series("deepseek_gpu_temperature_celsius", (("sensor", "gpu"),)),
                Form.NUMBER,
            ),
            Fact("power", Series("deepseek_gpu_power_watts"), Form.NUMBER),
            Fact("limit", Series("deepseek_gpu_power_limit_watts"), Form.NUMBER),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekFootprintUnknown",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        expression=EqualTo(Series("deepseek_deployment_state", (("state", "unknown"),)), 1),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        # Not the state itself: a deployment that was stopped has none either, and is no gap.
        witness=Witness(Series("deepseek_exporter_snapshot_timestamp_seconds"), Subject.HOST),
        summary="Deployment {deployment} of {host} has no expectation: model {model}, engine {engine}.",
        description=_prose(
            """
            An engine runs whose model could not be resolved, so what it should need is not known:
            only what it holds now counts as committed, and no alert can tell whether it will grow
            beyond the device. First action: run 'deepseek-exporter doctor' on the host; it names
            what could not be read. Then declare the model, or let the exporter read its
            checkpoint.
            """
        ),
        facts=(
            Fact("model", Series("deepseek_deployment_info"), Form.LABEL, "model"),
            Fact("engine", Series("deepseek_deployment_info"), Form.LABEL, "engine"),
        ),
    ),
    Condition(
        name="DeepSeekMonitoringBlind",
        severity=Severity.WARNING,
        subject=Subject.SOURCE,
        expression=AnyOf(
            (
                # "Expected and not known to be well", so that a source whose `up` is missing counts as blind.
                Unless(
                    EqualTo(Series("deepseek_exporter_source_expected"), 1),
                    AllOf(
                        (
                            EqualTo(Series("deepseek_exporter_source_up"), 1),
                            AgedAtMost(
                                Series("deepseek_exporter_source_last_success_timestamp_seconds"),
                                "source_stale_seconds",
                            ),
                        )
                    ),
                ),
                # A web server that outlives its poll loop serves the same snapshot for ever. Ten minutes
                # leave room for long poll intervals; a hang that the service manager sees ends before.
                FromOutside(
                    "label_replace(\n"
                    '  deepseek_exporter_snapshot_timestamp_seconds{job=~"${jobs}"}\n'
                    '  == deepseek_exporter_snapshot_timestamp_seconds{job=~"${jobs}"} offset 10m,\n'
                    '  "source", "snapshot", "", ""\n'
                    ")"
                ),
            )
        ),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Source {source} of {host} is blind: state {state}, last success {last_success}.",
        description=_prose(
            """
            This source is expected here, and it does not answer or its answers are old. Figures
            that need it are absent, so capacity alerts that need them can neither fire nor
            resolve. First action: run 'deepseek-exporter doctor' on the host; it names the reason
            and the remedy. Source 'snapshot' means that the daemon still answers but has stopped
            polling: restart it and keep its log.
            """
        ),
        facts=(
            Fact("state", Series("deepseek_exporter_source_state"), Form.LABEL, "state"),
            Fact("last_success", Series("deepseek_exporter_source_last_success_timestamp_seconds"), Form.AGE),
        ),
    ),
    Condition(
        name="DeepSeekExporterDown",
        severity=Severity.WARNING,
        subject=Subject.HOST,
        expression=FromOutside('up{job=~"${jobs}"} == 0'),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} does not answer.",
        description=_prose(
            """
            Prometheus cannot scrape this host's exporter. Nothing is known of its memory
            meanwhile. First action: 'systemctl status deepseek-exporter' on the host; when the
            host itself does not answer, that is the alert to follow.
            """
        ),
    ),
    Condition(
        name="DeepSeekExporterAbsent",
        severity=Severity.CRITICAL,
        subject=Subject.FLEET,
        expression=FromOutside('absent(up{job=~"${jobs}"})'),
        about_monitoring=True,
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Prometheus has no target of this exporter at all.",
        description=_prose(
            """
            Not one host is scraped: the job was renamed or dropped, or service discovery returns
            nothing. No other alert of this exporter can fire. First action: open the targets page
            of Prometheus and compare the job's name with the pattern in these rules.
            """
        ),
    ),
    Condition(
        name="DeepSeekConfigReloadFailed",
        severity=Severity.WARNING,
        subject=Subject.HOST,
        expression=EqualTo(Series("deepseek_exporter_config_last_reload_successful"), 0),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} runs on an older configuration: the last reload failed.",
        description=_prose(
            """
            The configuration file on the host was rejected; the daemon keeps the one before.
            Declared deployments and thresholds may be out of date. First action:
            'deepseek-exporter config check /etc/deepseek-exporter/config.toml' on the host names
            the key and line.
            """
        ),
    ),
    Condition(
        name="DeepSeekWatchdog",
        severity=Severity.NONE,
        subject=Subject.FLEET,
        expression=FromOutside("vector(1)"),
        about_monitoring=True,
        for_seconds=0,
        keep_firing_for_seconds=0,
        summary="The way from rule evaluation to the receiver works.",
        description=_prose(
            """
            This alert always fires. Send it to a dead man's switch outside this installation: the
            switch should raise an alarm when the alert stops arriving. Nothing is to be done
            while it fires.
            """
        ),
    ),
)
