"""Alerts about a deployment that holds other than it should on a device."""

from __future__ import annotations

from exporter.capacity.conditions.words import DEVICE_SPEAKS, MINUTE, PROCESSES_SPEAK, STATE, prose
from exporter.capacity.terms import (
    AboveSeries,
    AgedAtLeast,
    AllOf,
    AnyOf,
    Below,
    Condition,
    EqualTo,
    Fact,
    Fold,
    Form,
    Series,
    Severity,
    Subject,
    Within,
)

_DEVIATION = "deepseek_gpu_memory_deviation_bytes"
_TOLERANCE = "deepseek_gpu_memory_deviation_tolerance_bytes"

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekVramAboveExpected",
        severity=Severity.WARNING,
        subject=Subject.PLACEMENT,
        expression=AboveSeries(Series(_DEVIATION), Series(_TOLERANCE)),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=15 * MINUTE,
        keeps_state=True,
        witnesses=(DEVICE_SPEAKS, PROCESSES_SPEAK),
        value_form=Form.BYTES,
        summary=(
            "{deployment} holds {value} more on GPU {gpu} of {host} than it should: {expected} "
            "expected, {tolerance} more allowed for."
        ),
        description=prose(
            """
            The engine holds more than its model, quantization and limits account for, beyond what
            an estimate may be wrong by. A leak, a limit that was raised, another quantization
            than the one that was declared, or an estimate that wants correcting. First action:
            see whether the deviation grows (board, 'deviation'); a steady one since the start is
            a setting, a growing one a leak: restart the engine at a quiet hour before it meets
            the limit of the device.
            """
        ),
        facts=(
            Fact(
                "expected",
                Series("deepseek_expected_gpu_memory_bytes", folded=("component",), fold=Fold.SUM),
                Form.BYTES,
            ),
            Fact("tolerance", Series(_TOLERANCE), Form.BYTES),
        ),
    ),
    Condition(
        name="DeepSeekVramBelowExpected",
        severity=Severity.WARNING,
        subject=Subject.PLACEMENT,
        expression=AllOf(
            (
                Below(
                    Series("deepseek_gpu_memory_deviation_ratio"), "vram_below_expected_ratio", negative=True
                ),
                Within(
                    AnyOf(
                        (
                            EqualTo(Series(STATE, (("state", "warm"),)), 1),
                            AllOf(
                                (
                                    EqualTo(Series(STATE, (("state", "loading"),)), 1),
                                    AgedAtLeast(
                                        Series("deepseek_deployment_start_time_seconds"), "load_seconds"
                                    ),
                                )
                            ),
                        )
                    ),
                    Subject.DEPLOYMENT,
                ),
            )
        ),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(DEVICE_SPEAKS, PROCESSES_SPEAK),
        summary=(
            "{deployment} holds far less on GPU {gpu} of {host} than it should: {value} from the {expected} "
            "that are expected. State: {state}."
        ),
        description=prose(
            """
            The engine runs and holds far less than its model, quantization and limits call for.
            It serves something else than was declared or read from its launch: a smaller
            quantization, fewer layers on the GPU, another placement; or it hangs while it loads.
            First action: compare the engine's own log, model and quantization, with
            'deepseek-exporter status' on the host; correct the launch, or the declaration.
            """
        ),
        facts=(
            Fact(
                "expected",
                Series("deepseek_expected_gpu_memory_bytes", folded=("component",), fold=Fold.SUM),
                Form.BYTES,
            ),
            Fact("state", Series(STATE), Form.LABEL, "state", about=Subject.DEPLOYMENT),
        ),
    ),
)
