"""Alerts about the memory of a device as a whole: too much promised, too much held by others, growing."""

from __future__ import annotations

from exporter.capacity.conditions.words import (
    BOUND_HIGH,
    BOUND_LOW,
    DEVICE_SPEAKS,
    HOUR,
    MINUTE,
    ON_DEVICE,
    prose,
)
from exporter.capacity.terms import (
    Above,
    AllOf,
    AnyOf,
    AtMost,
    Condition,
    Fact,
    Fold,
    Form,
    Outgrows,
    Series,
    Severity,
    Subject,
    Unchanged,
    Unless,
    Witness,
)

_OVERCOMMIT = "deepseek_gpu_memory_overcommit_ratio"
_SETTLED = "deepseek_gpu_memory_overcommit_settled_ratio"
_WITH_OPTIONAL = "deepseek_gpu_memory_overcommit_optional_ratio"
_WITH_PENDING = "deepseek_gpu_memory_overcommit_pending_ratio"
_PENDING = "deepseek_gpu_memory_pending_bytes"
_HELD = "deepseek_gpu_memory_held_bytes"

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekVramOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        expression=Unless(
            Above(Series(_OVERCOMMIT, BOUND_LOW), "vram_overcommit_ratio"),
            # Two generations of one deployment overlap: VramRolloutOverlap's to tell, while they do.
            AtMost(Series(_SETTLED), "vram_overcommit_ratio"),
        ),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "GPU {gpu} of {host} is overcommitted at {value}: {committed} committed, {capacity} to give. "
            "Deployments: {deployments}."
        ),
        description=prose(
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
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekVramOvercommitLikely",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AnyOf(
            (
                Above(Series(_OVERCOMMIT, BOUND_HIGH), "vram_overcommit_ratio"),
                Above(Series(_WITH_PENDING, BOUND_HIGH), "vram_overcommit_near_ratio"),
                Above(Series(_WITH_OPTIONAL, BOUND_HIGH), "vram_overcommit_ratio"),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        witnesses=(Witness(Series(_OVERCOMMIT, BOUND_HIGH), Subject.DEVICE),),
        summary=(
            "GPU {gpu} of {host} may be overcommitted, {value} at the high end of the estimates: {committed} "
            "committed, {pending} of it still to be loaded, {capacity} to give; with the largest optional "
            "deployment that does not run: {optional}. Deployments: {deployments}."
        ),
        description=prose(
            """
            If what can only be estimated (activations, CUDA graphs, communication buffers) turns
            out at its high end, this device does not suffice for what is loaded and required on
            it; or it is nearly full and something is still to be loaded; or an optional
            deployment that was declared here would not fit. Nothing is certain to fail. First
            action: see how much room the estimates leave (panel 'GPU memory by host and device'),
            then lower the context length, the number of sequences or the memory fraction of one
            deployment, or move it.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", BOUND_HIGH), Form.BYTES),
            Fact("pending", Series(_PENDING, BOUND_HIGH), Form.BYTES, otherwise="nothing"),
            Fact("optional", Series(_WITH_OPTIONAL, BOUND_HIGH), Form.RATIO, otherwise="there is none"),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekVramRolloutOverlap",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AllOf(
            (
                Above(Series(_OVERCOMMIT, BOUND_LOW), "vram_overcommit_ratio"),
                AtMost(Series(_SETTLED), "vram_overcommit_ratio"),
            )
        ),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(DEVICE_SPEAKS,),
        summary=(
            "GPU {gpu} of {host} is overcommitted at {value} by a roll-out: {outgoing} of {committed} belong "
            "to a deployment whose successor has started; {capacity} to give. Deployments: {deployments}."
        ),
        description=prose(
            """
            Two generations of one deployment share this device, and together they need more than
            it can give. While that is so the page about overcommitment is held back. It becomes a
            page when the younger one is an hour old (threshold rollout_seconds). First action:
            see whether the roll-out still moves; if it hangs, stop the older generation, or the
            younger one when it does not become ready.
            """
        ),
        facts=(
            Fact("outgoing", Series("deepseek_gpu_rollout_overlap_bytes"), Form.BYTES),
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekForeignVram",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        # Only devices that serve, or are promised to a deployment, have it.
        expression=Above(Series("deepseek_gpu_memory_foreign_bytes"), "foreign_vram_bytes"),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        keeps_state=True,
        witnesses=(DEVICE_SPEAKS,),
        summary=(
            "GPU {gpu} of {host} has foreign memory: {other} of processes that belong to no deployment, "
            "{unattributed} of no known process. Deployments: {deployments}."
        ),
        description=prose(
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
            ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekVramGrowthWillExhaust",
        severity=Severity.WARNING,
        subject=Subject.DEVICE,
        expression=AllOf(
            (
                Outgrows(
                    Series("deepseek_gpu_memory_committed_bytes", BOUND_LOW),
                    Series("deepseek_gpu_memory_capacity_bytes"),
                    "vram_growth_bytes",
                    since_seconds=(6 * HOUR, HOUR),
                    ahead_seconds=4 * HOUR,
                ),
                # A model that was placed is a step, not growth.
                Unchanged(
                    Series("deepseek_expected_gpu_memory_sum_bytes", folded=("deployment",), fold=Fold.SUM),
                    6 * HOUR,
                ),
            )
        ),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(DEVICE_SPEAKS,),
        value_form=Form.BYTES,
        summary=(
            "GPU {gpu} of {host} will run out: at the pace of the last hours {value} will be committed in 4 "
            "hours, {committed} are now, {capacity} to give. Deployments: {deployments}."
        ),
        description=prose(
            """
            What is committed on this device grew until an hour ago and in the last hour, without a
            new model, and at the pace of the five hours before as at that of the last one it ends
            above what the device can give within four hours. First action: see who grows (board,
            'Held by'): a deployment above its expectation leaks and is restarted at a quiet hour;
            a stranger is asked.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            ON_DEVICE,
        ),
    ),
)
