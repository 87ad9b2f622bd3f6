"""Families of the stores: disks where checkpoints lie, and what lies there."""

from __future__ import annotations

from exporter.exposition.families.family import DEPLOYMENT, Family, gauge, info

STORE = ("store",)

STORE_SIZE = gauge("model_store_size_bytes", STORE, "Size of the file system that a store is on.")
STORE_FREE = gauge(
    "model_store_free_bytes", STORE, "What others than root may still write there (statvfs f_bavail)."
)
STORE_FREE_RATIO = gauge("model_store_free_ratio", STORE, "Free / size.")
STORE_OCCUPIED = gauge(
    "model_store_occupied_bytes", STORE, "Size - free: everything on the file system, of whomever."
)
STORE_USED = gauge(
    "model_store_used_bytes",
    STORE,
    "Room that DeepSeek checkpoints take; absent while a part of the store cannot be read.",
)
STORE_CHECKPOINT = gauge(
    "model_store_checkpoint_bytes",
    (*STORE, "model", "state"),
    "Room by model (other: no DeepSeek model; unknown: a download without a name) and state: complete, "
    "downloading, incomplete, orphaned, no_weights.",
)
STORE_ORPHANED = gauge(
    "model_store_orphaned_bytes",
    STORE,
    "Room of what no name leads to any more: revisions that a branch left behind, blobs of no manifest.",
)
STORE_INCOMPLETE = gauge(
    "model_store_incomplete_bytes", STORE, "Room of downloads that were given up, of any model."
)
STORE_REMAINING = gauge(
    "model_store_download_remaining_bytes",
    STORE,
    "What running downloads are still to bring; absent while none runs or one does not tell its size.",
)
STORE_DOWNLOAD_HEADROOM = gauge(
    "model_store_download_headroom_bytes",
    STORE,
    "Free when every running download has ended; negative: they do not fit. Of the last look at the files.",
)
STORE_FIT_HEADROOM = gauge(
    "model_store_fit_headroom_bytes",
    (*STORE, "model", "quantization"),
    "Free when running downloads have ended and storage.next_model has been fetched; negative: it lacks.",
)
STORE_ROOT = info(
    "model_store_root",
    (*STORE, "root", "kind", "origin"),
    "Folders of a store: their layout, and whether they were configured or found by a deployment.",
)
STORE_ROOT_STATE = gauge(
    "model_store_root_state",
    (*STORE, "root", "state"),
    "1 for the present state: up, unscanned, partial, stalled, no_permission, missing, not_a_folder, "
    "too_many_files, failed.",
)
STORE_SCANNED = gauge(
    "model_store_root_scan_timestamp_seconds", (*STORE, "root"), "When its files were looked at, Unix time."
)
STORE_DEPLOYMENT = info(
    "model_store_deployment", (*STORE, *DEPLOYMENT), "Deployments that run and whose files lie in a store."
)

FAMILIES: tuple[Family, ...] = (
    STORE_SIZE,
    STORE_FREE,
    STORE_FREE_RATIO,
    STORE_OCCUPIED,
    STORE_USED,
    STORE_CHECKPOINT,
    STORE_ORPHANED,
    STORE_INCOMPLETE,
    STORE_REMAINING,
    STORE_DOWNLOAD_HEADROOM,
    STORE_FIT_HEADROOM,
    STORE_ROOT,
    STORE_ROOT_STATE,
    STORE_SCANNED,
    STORE_DEPLOYMENT,
)
