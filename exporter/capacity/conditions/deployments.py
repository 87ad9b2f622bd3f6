"""Alerts about what a deployment is: unknown, not as declared, idle, or badly predicted."""

from __future__ import annotations

from exporter.capacity.conditions.words import HOUR, MINUTE, PROCESSES_SPEAK, STATE, prose
from exporter.capacity.terms import (
    Above,
    AllOf,
    Condition,
    EqualTo,
    Fact,
    Fold,
    Form,
    Series,
    Severity,
    Steady,
    Subject,
)

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekFootprintUnknown",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        expression=EqualTo(Series(STATE, (("state", "unknown"),)), 1),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        # Not the state itself: a deployment that was stopped has none either, and is no gap.
        witnesses=(PROCESSES_SPEAK,),
        summary="Deployment {deployment} of {host} has no expectation: model {model}, engine {engine}.",
        description=prose(
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
        name="DeepSeekDeclarationMismatch",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        expression=EqualTo(
            Series("deepseek_deployment_matches_declaration", folded=("field",), fold=Fold.MIN), 0
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        value_form=Form.NUMBER,
        summary=(
            "{deployment} on {host} does not run as declared. Different: {fields}. It runs model {model}, "
            "quantization {quantization}."
        ),
        description=prose(
            """
            What runs under this name differs from what the configuration of the exporter
            declares. Its expectation and its room are those of the declaration, so headroom and
            deviation of this deployment are about something that does not run. First action:
            'deepseek-exporter status' on the host shows both; correct the launch, or the
            declaration, whichever is wrong.
            """
        ),
        facts=(
            Fact("fields", Series("deepseek_deployment_matches_declaration"), Form.LABEL, "field", zero=True),
            Fact("model", Series("deepseek_deployment_info"), Form.LABEL, "model"),
            Fact("quantization", Series("deepseek_deployment_info"), Form.LABEL, "quantization"),
        ),
    ),
    Condition(
        name="DeepSeekPlanErrorHigh",
        severity=Severity.INFO,
        subject=Subject.DEPLOYMENT,
        expression=Above(
            Series("deepseek_exporter_plan_error_ratio", folded=("component",), absolute=True),
            "plan_error_ratio",
        ),
        for_seconds=60 * MINUTE,
        keep_firing_for_seconds=0,
        keeps_state=True,
        witnesses=(PROCESSES_SPEAK,),
        summary=(
            "The expectation of {deployment} on {host} is off by {value} from what the engine itself says: "
            "{components}. Engine {engine} {version}."
        ),
        description=prose(
            """
            The engine prints its own figure of this component, and the exporter's arithmetic
            differs by more than the tolerance: headroom of this deployment is less certain than
            it looks. Nothing is to be done on the host. 'deepseek-exporter footprint --explain'
            with the launch shows formula and inputs; a report with both figures helps to correct
            them.
            """
        ),
        facts=(
            Fact("components", Series("deepseek_exporter_plan_error_ratio"), Form.PAIRS, "component"),
            Fact("engine", Series("deepseek_deployment_info"), Form.LABEL, "engine"),
            Fact("version", Series("deepseek_deployment_info"), Form.LABEL, "engine_version"),
        ),
    ),
    Condition(
        name="DeepSeekIdleWaste",
        severity=Severity.INFO,
        subject=Subject.DEPLOYMENT,
        expression=AllOf(
            (
                EqualTo(Series(STATE, (("state", "warm"),)), 1),
                Steady(
                    Series(
                        "deepseek_tokens_total",
                        folded=("kind",),
                        fold=Fold.SUM,
                        recorded="deployment:deepseek_tokens:sum",
                    ),
                    6 * HOUR,
                ),
            )
        ),
        for_seconds=0,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        value_form=Form.NUMBER,
        summary="{deployment} on {host} is loaded and has served nothing for 6 hours. Model {model}.",
        description=prose(
            """
            The engine holds its memory and has not read or written a token for six hours. The
            memory, and the power of loaded devices, could serve something else. Let it sleep,
            stop it at night, or move its users to a deployment that is busy.
            """
        ),
        facts=(Fact("model", Series("deepseek_deployment_info"), Form.LABEL, "model"),),
    ),
)
