"""The stores in words: what is left of each disk, what takes it, what is still to come."""

from __future__ import annotations

from exporter.views.facts import Finding, Level, StoreFacts
from exporter.views.plain import Plain
from exporter.views.words import count, shown, size

ALERT = "DeepSeekModelStoreFull"
_FLOOR_BYTES = 100 * 2**30
_FLOOR_RATIO = 0.05
_MARGIN_BYTES = 2**30
"""Where the snapshot has no thresholds"""
_MODELS_SHOWN = 6
_TROUBLE = {
    "partial": "a part of it cannot be read",
    "stalled": "its file system does not answer",
    "no_permission": "it may not be read",
    "missing": "it is not there",
    "not_a_folder": "it is no folder",
    "too_many_files": "it has more files than are looked at",
    "failed": "it cannot be read",
    "unscanned": "its files were not looked at yet",
}


def stores(plain: Plain) -> tuple[StoreFacts, ...]:
    """Every store, in its order."""
    return tuple(_store(one, plain["thresholds"]) for one in plain.get("stores", ()))


def findings(facts: tuple[StoreFacts, ...]) -> list[Finding]:
    """Those that are full or will be."""
    return [
        Finding(one.level, f"store {one.name}: {one.words}", ALERT, one.name)
        for one in facts
        if one.level is Level.WARNING
    ]


def _store(store: Plain, thresholds: Plain) -> StoreFacts:
    level, words = _judged(store, thresholds)
    return StoreFacts(
        name=shown(store["name"]),
        level=level,
        words=words,
        size_bytes=store["size_bytes"],
        free_bytes=store["free_bytes"],
        used_bytes=store["used_bytes"],
        details=tuple(_details(store)),
        models=tuple(
            (shown(one["model"]), one["state"].replace("_", " "), one["size_bytes"])
            for one in store["checkpoints"][:_MODELS_SHOWN]
        ),
    )


def _judged(store: Plain, thresholds: Plain) -> tuple[Level, str]:
    """By the present alone: what needs a day's trend, the alert tells."""
    free, total = store["free_bytes"], store["size_bytes"]
    troubles = [one["state"] for one in store["roots"] if one["state"] != "up"]
    headroom = store["download_headroom_bytes"]
    if headroom is not None and headroom < thresholds.get("model_store_download_margin_bytes", _MARGIN_BYTES):
        lacks = f"{size(-headroom)} too little" if headroom < 0 else f"only {size(headroom)} left then"
        return Level.WARNING, f"a running download does not fit: {lacks}"
    if free is not None and total and _is_full(free, total, thresholds):
        return Level.WARNING, f"only {size(free)} of {size(total)} are free"
    if troubles:
        level = Level.GOOD if troubles == ["unscanned"] else Level.INFO
        return level, _TROUBLE.get(troubles[0], shown(troubles[0]))
    return Level.GOOD, f"{size(free)} free" if headroom is None else f"{size(headroom)} free after downloads"


def _is_full(free: int, total: int, thresholds: Plain) -> bool:
    least: float = thresholds.get("model_store_free_bytes", _FLOOR_BYTES)
    share: float = thresholds.get("model_store_free_ratio", _FLOOR_RATIO)
    return free < least and free / total < share


def _details(store: Plain) -> list[str]:
    parts = []
    for key, words in (
        ("download_remaining_bytes", "still to be downloaded"),
        ("orphaned_bytes", "orphaned"),
        ("incomplete_bytes", "of downloads given up"),
        ("other_models_bytes", "of other models"),
    ):
        if store[key]:
            parts.append(f"{size(store[key])} {words}")
    coming = store["next_model"]
    if coming is not None:
        left = coming["headroom_bytes"]
        fits = f"fits, {size(left)} left" if left >= 0 else f"does not fit, {size(-left)} too little"
        parts.append(f"{shown(coming['model'])} {shown(coming['quantization'])} {fits}")
    users = {name for root in store["roots"] for name in root["deployments"]}
    if users:
        parts.append(f"serves {', '.join(shown(name) for name in sorted(users))}")
    if len(store["roots"]) > 1:
        parts.append(count(len(store["roots"]), "folder"))
    return parts
