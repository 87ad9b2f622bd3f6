"""Alerts about the disks where checkpoints lie: full, filling, or to be filled by a download."""

from __future__ import annotations

from exporter.capacity.conditions.words import HOUR, MINUTE, prose
from exporter.capacity.terms import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Condition,
    Fact,
    Form,
    Series,
    Severity,
    Subject,
    Unless,
    WillExceed,
    Witness,
)

_FREE = Series("deepseek_model_store_free_bytes")
_SIZE = Series("deepseek_model_store_size_bytes")
_DOWNLOAD_HEADROOM = Series("deepseek_model_store_download_headroom_bytes")

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekModelStoreFull",
        severity=Severity.WARNING,
        subject=Subject.STORE,
        expression=AnyOf(
            (
                AllOf(
                    (
                        Below(_FREE, "model_store_free_bytes"),
                        Below(Series("deepseek_model_store_free_ratio"), "model_store_free_ratio"),
                    )
                ),
                Below(_DOWNLOAD_HEADROOM, "model_store_download_margin_bytes"),
                Unless(
                    # As far ahead as back, so that a model that was copied in an hour is no trend: the line
                    # through 24 hours lags behind a step, and the one through the last hour is level again.
                    WillExceed(
                        Series(
                            "deepseek_model_store_occupied_bytes",
                            recorded="store:deepseek_model_store_occupied_bytes:max",
                        ),
                        _SIZE,
                        "model_store_growth_bytes",
                        windows_seconds=(24 * HOUR, 6 * HOUR, HOUR),
                        ahead_seconds=24 * HOUR,
                    ),
                    # A download grows steeply and ends; whether it fits is known.
                    Above(_DOWNLOAD_HEADROOM, "model_store_download_margin_bytes"),
                ),
            )
        ),
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(Witness(_SIZE, Subject.STORE),),
        value_form=Form.NUMBER,
        summary=(
            "Store {store} of {host} is full or will be: {free} free of {size}, {coming} still to be "
            "downloaded, {after} free then. Orphaned {orphaned}, given up {incomplete}. Deployments: "
            "{deployments}."
        ),
        description=prose(
            """
            The disk where checkpoints lie has too little left, a running download will not fit on
            it, or it has filled steadily and will be full within 24 hours. A download that fills
            it fails at its end, and whatever else writes there fails with it. First action:
            'deepseek-exporter status' on the host shows what takes the room; stop a download that
            does not fit, then delete revisions that nothing uses ('hf cache prune', 'ollama rm')
            and downloads that were given up.
            """
        ),
        facts=(
            Fact("free", _FREE, Form.BYTES),
            Fact("size", _SIZE, Form.BYTES),
            Fact(
                "coming",
                Series("deepseek_model_store_download_remaining_bytes"),
                Form.BYTES,
                otherwise="nothing",
            ),
            Fact("after", _DOWNLOAD_HEADROOM, Form.BYTES, otherwise="as much"),
            Fact("orphaned", Series("deepseek_model_store_orphaned_bytes"), Form.BYTES),
            Fact("incomplete", Series("deepseek_model_store_incomplete_bytes"), Form.BYTES),
            Fact(
                "deployments",
                Series("deepseek_model_store_deployment_info"),
                Form.LABEL,
                "deployment",
                otherwise="none runs",
            ),
        ),
    ),
)
