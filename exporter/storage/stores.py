"""Roots on disks as stores: which share a file system, what each is called, and what its parts add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporter.storage.facts import (
    Checkpoint,
    CheckpointState,
    Kind,
    NextModel,
    RootState,
    RootStatus,
    Scan,
    Space,
    Store,
)

MOST_SHOWN = 50
"""Checkpoints that a store names; the smallest beyond are summed as `more`."""
MORE = "more"


@dataclass(frozen=True, slots=True)
class Root:
    """A root with what is known of it now. ``space`` is fresh or None; ``device`` was its disk when that
    was last known. ``scan`` None: none that is fresh.
    """

    name: str
    kind: Kind
    origin: str
    state: RootState
    deployments: tuple[str, ...] = ()
    device: tuple[int, int] | None = None
    """device and size of its file system: one with project quotas has several sizes (xfs_quota(8))"""
    space: Space | None = None
    scan: Scan | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The model that is to be fetched next."""

    model: str
    quantization: str
    native: bool
    """whether that is the quantization of the published files"""
    size_bytes: int


def unique(wanted: Iterable[str]) -> list[str]:
    """Names made to differ by `-2`, `-3`; each keeps its own as long as those before it do."""
    given: list[str] = []
    for name in wanted:
        number, one = 1, name
        while one in given:
            number += 1
            one = f"{name}-{number}"
        given.append(one)
    return given


def stores(roots: Sequence[Root], wanted: Wanted | None = None) -> tuple[Store, ...]:
    """One store for each file system, called by its first root."""
    disks: dict[object, list[Root]] = {}
    for root in roots:
        disks.setdefault(root.device or root.name, []).append(root)
    return tuple(_store(on_disk, wanted) for on_disk in disks.values())


def _store(roots: Sequence[Root], wanted: Wanted | None) -> Store:
    space = next((root.space for root in roots if root.space is not None), None)
    scans = [root.scan for root in roots if root.scan is not None]
    found = [one for scan in scans for one in scan.checkpoints]
    # A sum with a part missing is no sum.
    whole = all(root.state is RootState.UP and root.scan is not None for root in roots)
    ours = [one for one in found if one.deepseek]
    remaining, headroom = _downloads(scans, found, whole=whole)
    return Store(
        name=roots[0].name,
        size_bytes=space.size_bytes if space else None,
        free_bytes=space.free_bytes if space else None,
        used_bytes=_sum(ours) if whole else None,
        other_models_bytes=_sum(one for one in found if not one.deepseek) if whole else None,
        orphaned_bytes=_sum(_in(found, CheckpointState.ORPHANED)) if whole else None,
        incomplete_bytes=_sum(_in(found, CheckpointState.INCOMPLETE)) if whole else None,
        download_remaining_bytes=remaining,
        download_headroom_bytes=headroom,
        roots=tuple(_status(root) for root in roots),
        checkpoints=_shown(found),
        next_model=_next(wanted, found, space, remaining) if whole else None,
    )


def _downloads(
    scans: Sequence[Scan], found: Sequence[Checkpoint], *, whole: bool
) -> tuple[int | None, int | None]:
    """What is still to come, and what is then left: both of the time of the scan, so that a download that
    goes on changes them little. Where something is not known, what is may still be too much.
    """
    running = _in(found, CheckpointState.DOWNLOADING)
    known = [one.remaining_bytes for one in running if one.remaining_bytes is not None]
    latest = max(scans, key=lambda scan: scan.at_seconds, default=None)
    if not known or latest is None or latest.free_bytes is None:
        return None, None
    headroom = latest.free_bytes - sum(known)
    if not whole or len(known) < len(running):
        return None, headroom if headroom < 0 else None
    return sum(known), headroom


def _next(
    wanted: Wanted | None, found: Sequence[Checkpoint], space: Space | None, remaining: int | None
) -> NextModel | None:
    if wanted is None or space is None:
        return None
    needed = 0 if any(_is_here(one, wanted) for one in found) else wanted.size_bytes
    left = space.free_bytes - (remaining or 0) - needed
    return NextModel(wanted.model, wanted.quantization, needed, left)


def _is_here(one: Checkpoint, wanted: Wanted) -> bool:
    """Whether it is, or is being fetched."""
    same = one.quantization == wanted.quantization or (one.quantization is None and wanted.native)
    there = one.state in (CheckpointState.COMPLETE, CheckpointState.DOWNLOADING)
    return one.model == wanted.model and same and there


def _status(root: Root) -> RootStatus:
    scan = root.scan
    return RootStatus(
        root.name,
        root.kind,
        root.origin,
        root.state,
        root.deployments,
        scan.at_seconds if scan else None,
        scan.entries if scan else None,
    )


def _shown(found: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The DeepSeek checkpoints and what is under way, the same model in the same state as one."""
    merged: dict[tuple[str, str | None, CheckpointState], list[Checkpoint]] = {}
    for one in found:
        merged.setdefault((one.model, one.quantization, one.state), []).append(one)
    rows = sorted((_merged(group) for group in merged.values()), key=lambda one: -one.size_bytes)
    rest: dict[CheckpointState, list[Checkpoint]] = {}
    for one in rows[MOST_SHOWN:]:
        rest.setdefault(one.state, []).append(one)
    return (
        *rows[:MOST_SHOWN],
        *(Checkpoint(MORE, state, _sum(group)) for state, group in rest.items()),
    )


def _merged(group: Sequence[Checkpoint]) -> Checkpoint:
    first = group[0]
    return Checkpoint(
        first.model,
        first.state,
        _sum(group),
        first.deepseek,
        first.quantization,
        _known(one.expected_bytes for one in group),
        _known(one.remaining_bytes for one in group),
    )


def _known(sizes: Iterable[int | None]) -> int | None:
    every = list(sizes)
    known = [size for size in every if size is not None]
    return sum(known) if len(known) == len(every) else None


def _in(found: Iterable[Checkpoint], state: CheckpointState) -> list[Checkpoint]:
    return [one for one in found if one.state is state]


def _sum(found: Iterable[Checkpoint]) -> int:
    return sum(one.size_bytes for one in found)
