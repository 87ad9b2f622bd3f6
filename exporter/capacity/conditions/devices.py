"""Alerts about devices that are lost, broken or slowed down."""

from __future__ import annotations

from exporter.capacity.conditions.words import MINUTE, ON_DEVICE, prose
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
    Grown,
    Series,
    Severity,
    Subject,
    Unless,
    Witness,
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

_XIDS = (("xid", tuple(str(code) for code in HARDWARE_XIDS)),)
_HEALTHY = Series("deepseek_gpu_healthy", folded=("source",), fold=Fold.MIN)
_UNCORRECTED = Series("deepseek_gpu_ecc_errors_total", (("kind", "uncorrected"),))

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekGpuLost",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        # Released on purpose is no reason to page. While an exporter that tells of devices is silent nobody
        # has said that they are gone; both are MonitoringBlind's to tell.
        expression=Unless(
            EqualTo(Series("deepseek_gpu_up"), 0),
            EqualTo(Series("deepseek_gpu_state", choices=(("state", ("released", "source_down")),)), 1),
        ),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=0,
        # Else every restart of the daemon would tell people that the device is back.
        keeps_state=True,
        summary="GPU {gpu} ({uuid}) of {host} is lost: state {state}. Deployments: {deployments}.",
        description=prose(
            """
            A device that this host has, by its inventory or its configuration, does not answer.
            Its memory figures are absent until it does, and capacity alerts of this device keep
            their last state meanwhile. First action: look for Xid messages of this device in the
            kernel log (journalctl -k), then drain the host and reset the device or restart the
            host.
            """
        ),
        facts=(Fact("state", Series("deepseek_gpu_state"), Form.LABEL, "state"), ON_DEVICE),
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
                # Of devices that another exporter tells of, its own word is all that is known.
                EqualTo(_HEALTHY, 0),
            )
        ),
        for_seconds=0,
        keep_firing_for_seconds=60 * MINUTE,
        summary=(
            "GPU {gpu} ({uuid}) of {host} has hardware errors. Xid: {xids}; uncorrected ECC errors since the "
            "driver was loaded: {uncorrected}; called unhealthy by: {unhealthy}. Deployments: {deployments}."
        ),
        description=prose(
            """
            The device reported an error of its memory, its links or its firmware that programs do
            not cause, or the exporter that tells of it calls it unhealthy. What it computed
            meanwhile may be lost, and often the device is the next to fail. First action: look for
            the Xid in the kernel log (journalctl -k) and in the runbook, then drain the host and
            reset the device; when it comes again, have the device replaced.
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
            Fact("unhealthy", _HEALTHY, Form.LABEL, "source", zero=True, otherwise="none"),
            ON_DEVICE,
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
                    Series("deepseek_gpu_clocks_limited_by_fault", lately_seconds=2 * MINUTE),
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
        witnesses=(Witness(Series("deepseek_gpu_utilization_ratio"), Subject.DEVICE),),
        summary=(
            "GPU {gpu} of {host} is slowed down by {reasons}: {temperature} °C, {power} W of {limit} W. "
            "Deployments: {deployments}."
        ),
        description=prose(
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
            ON_DEVICE,
        ),
    ),
)
