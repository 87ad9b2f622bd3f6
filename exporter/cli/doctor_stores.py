"""`doctor`: of every store, whether its disk answers and its files may be read, and what to do where not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from exporter.cli.checks import Check, Verdict
from exporter.engines.discovery import Discovery
from exporter.engines.process import ProcessTable
from exporter.settings.options import Settings
from exporter.storage.facts import Kind, RootState, Scan
from exporter.storage.guard import Guard
from exporter.storage.scanner import Scanner
from exporter.storage.space import NoSpace, Probe, probe, short_name
from exporter.storage.stores import unique
from exporter.storage.wire import Question
from exporter.units import format_bytes

ANSWER_SECONDS = 5.0
_MOST_WAITED = 20.0

ADVICE = {
    RootState.STALLED: "its file system does not answer: see `mount` and the server behind it; until then "
    "nothing is told of it, and the other stores are watched",
    RootState.NO_PERMISSION: "let the service read the folder: a group that may (SupplementaryGroups=), and "
    "for home directories, which it sees empty, BindReadOnlyPaths= too (models.conf.example; docs/STORES.md)",
    RootState.MISSING: "no such folder is seen from here: is the path right, is it mounted? The service sees "
    "/home and /root empty: models.conf.example puts a folder back (docs/STORES.md)",
    RootState.NOT_A_FOLDER: "name the folder that holds the checkpoints, not a file",
    RootState.FAILED: "it cannot be read; the kernel's log may say why (dmesg)",
    RootState.TOO_MANY_FILES: "name a folder that holds nothing but checkpoints, or raise "
    "storage.max_entries; its disk is watched all the same",
    RootState.PARTIAL: "some folders in it may not be read, or a list of files makes no sense: sums of the "
    "store are absent; give the service a group that may read them",
}
ELSEWHERE = "name each of these mounts as [[stores]], since a store is one file system"
PRIVATE = (
    "where the files of running engines lie is shown to their own user and to CAP_SYS_PTRACE only: name the "
    "folders as [[stores]] in the configuration (docs/STORES.md)"
)


def stores(settings: Settings) -> Iterator[Check]:
    """Every configured store, and whether those of running engines can be found."""
    if not settings.storage.enabled:
        yield Check("stores", "note", "switched off (storage.enabled)")
        return
    roots = [(str(one.path), Kind(one.kind), one.name) for one in settings.stores]
    names = unique(name or short_name(path, kind) for path, kind, name in roots)
    for (path, kind, _), name in zip(roots, names, strict=True):
        yield from _store(f"store.{name}", path, kind, settings)
    if settings.storage.discover and _has_private_engines(settings.host.proc_path):
        verdict: Verdict = "note" if settings.stores else "problem"
        yield Check("stores.engines", verdict, "engines run whose files cannot be found", PRIVATE)
    elif not settings.stores:
        yield Check("stores", "note", "none configured; those of running engines are found by themselves")


def _store(name: str, path: str, kind: Kind, settings: Settings) -> Iterator[Check]:
    guard: Guard[Probe] = Guard()
    call = guard.begin(path, lambda: probe(path))
    try:
        if call is None:
            raise TimeoutError
        space = call.result(ANSWER_SECONDS).space
    except TimeoutError:
        yield _trouble(name, RootState.STALLED)
        return
    except NoSpace as error:
        yield _trouble(name, error.state)
        return
    free = f"{format_bytes(space.free_bytes)} free of {format_bytes(space.size_bytes)}"
    yield Check(name, "ok", free)
    question = Question(path, kind, settings.storage.max_entries)
    yield _files(f"{name}.files", Scanner().scan(question, min(settings.storage.scan_deadline, _MOST_WAITED)))


def _files(name: str, scan: Scan) -> Check:
    if scan.state is RootState.PARTIAL:
        return Check(name, "note", f"not readable: {scan.unreadable}", ADVICE[scan.state])
    if scan.state is not RootState.UP:
        return _trouble(name, scan.state)
    models = {one.model for one in scan.checkpoints if one.deepseek}
    found = f"{scan.entries} files and folders, DeepSeek models: {len(models)}"
    if scan.other_file_systems:
        return Check(name, "note", f"{found}, mounts left out: {scan.other_file_systems}", ELSEWHERE)
    return Check(name, "ok", found)


def _trouble(name: str, state: RootState) -> Check:
    return Check(name, "problem", state.replace("_", " "), ADVICE[state])


def _has_private_engines(proc: Path) -> bool:
    try:
        instances = Discovery(ProcessTable(proc), proc).look().instances
    except OSError:
        return False  # the check of the processes says so
    return any(one.namespace is None and not one.orphaned for one in instances)
