"""Disks of checkpoints as panels: what is left of each, and what takes its room."""

from __future__ import annotations

from board import HOST, PER_HOST, lowest
from panels import LEFT_STEPS, Panel, Query, coloured, lines, stacked, table, wide

PER_STORE = f"{PER_HOST}, store"


def stores() -> tuple[Panel, ...]:
    def one(family: str) -> str:
        return f"max by ({PER_STORE}) (deepseek_model_store_{family}{{{HOST}}})"

    return (
        table(
            "Stores of checkpoints",
            "Disks where checkpoints lie. After downloads: what is free when those that run have ended. "
            "Orphaned: revisions and blobs that no name leads to any more. Given up: downloads that nobody "
            "continues. Plan: what is free when storage.next_model has been fetched too.",
            "bytes",
            (
                Query(one("size_bytes"), column="Size"),
                Query(one("free_bytes"), column="Free"),
                Query(one("used_bytes"), column="DeepSeek"),
                Query(one("orphaned_bytes"), column="Orphaned"),
                Query(one("incomplete_bytes"), column="Given up"),
                Query(one("download_remaining_bytes"), column="To come"),
                Query(one("download_headroom_bytes"), column="After downloads"),
                Query(
                    f"min by ({PER_STORE}) (deepseek_model_store_fit_headroom_bytes{{{HOST}}})", column="Plan"
                ),
            ),
            {"instance": "Host", "store": "Store"},
            hidden=("job",),
            width=24,
            height=7,
            overrides=(
                coloured("After downloads", LEFT_STEPS),
                coloured("Plan", LEFT_STEPS),
                wide("Host", 160),
                wide("Store", 160),
            ),
            sort="Free",
        ),
        stacked(
            "Checkpoints on disk",
            "Room that checkpoints take in the chosen hosts' stores, by model and state.",
            "bytes",
            (
                Query(
                    f"sum by (model, state) (deepseek_model_store_checkpoint_bytes{{{HOST}}})",
                    "{{model}} {{state}}",
                ),
            ),
        ),
        lines(
            "Free on the disks of checkpoints",
            "Dashed: the floor below which a disk counts as full when it is also a small share of it.",
            "bytes",
            (
                Query(f"deepseek_model_store_free_bytes{{{HOST}}}", "{{store}} {{instance}}"),
                Query(lowest("model_store_free_bytes"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
    )
