"""Samples of the stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import Family, stores
from exporter.storage.facts import RootState, Store

_SIZES: tuple[tuple[Family, str], ...] = (
    (stores.STORE_SIZE, "size_bytes"),
    (stores.STORE_FREE, "free_bytes"),
    (stores.STORE_OCCUPIED, "occupied_bytes"),
    (stores.STORE_USED, "used_bytes"),
    (stores.STORE_ORPHANED, "orphaned_bytes"),
    (stores.STORE_INCOMPLETE, "incomplete_bytes"),
    (stores.STORE_REMAINING, "download_remaining_bytes"),
    (stores.STORE_DOWNLOAD_HEADROOM, "download_headroom_bytes"),
)


def store_samples(store: Store) -> Iterator[Sample]:
    """One store; what is not known of it is left out."""
    name = (store.name,)
    for family, attribute in _SIZES:
        value = getattr(store, attribute)
        if value is not None:
            yield family, name, value
    if store.size_bytes and store.free_bytes is not None:
        yield stores.STORE_FREE_RATIO, name, store.free_bytes / store.size_bytes
    if store.next_model is not None:
        labels = (*name, store.next_model.model, store.next_model.quantization)
        yield stores.STORE_FIT_HEADROOM, labels, store.next_model.headroom_bytes
    sizes: Counter[tuple[str, str]] = Counter()
    for one in store.checkpoints:
        sizes[one.model, one.state] += one.size_bytes
    for (model, state), size in sizes.items():
        yield stores.STORE_CHECKPOINT, (*name, model, state), size
    for root in store.roots:
        yield stores.STORE_ROOT, (*name, root.name, root.kind, root.origin), 1
        yield stores.STORE_ROOT_STATE, (*name, root.name, root.state), 1
        if root.scanned_at_seconds is not None and root.state is not RootState.UNSCANNED:
            yield stores.STORE_SCANNED, (*name, root.name), root.scanned_at_seconds
    for deployment in store.deployments:
        yield stores.STORE_DEPLOYMENT, (*name, deployment), 1
