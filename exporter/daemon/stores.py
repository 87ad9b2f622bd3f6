"""Keeps watch over the stores of checkpoints: those that are configured, and those of the engines here.

Free space is looked at every few seconds and files every few minutes, both in threads that nobody waits for;
a poll takes what was last learned, and nothing of a file system that has ceased to answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from exporter import log
from exporter.engines.discovery import Instance
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization, containers
from exporter.models.quantization import Container, file_bytes
from exporter.settings.options import Storage, Store
from exporter.storage.facts import Kind, RootState, Scan
from exporter.storage.facts import Store as StoreFacts
from exporter.storage.guard import Guard
from exporter.storage.scanner import Scanner
from exporter.storage.space import NoSpace, Place, Probe, place_of, probe, short_name
from exporter.storage.stores import Root, Wanted, stores, unique
from exporter.storage.wire import Question

_log = log.get(__name__)

SPACE_SECONDS = 15.0
"""How often free space is looked at."""
ANSWER_SECONDS = 5.0
"""How long a file system may take for that, before it counts as stalled."""
FIRST_WORD_SECONDS = 0.25
"""How long a poll waits for a root that was never looked at."""
KEPT_SECONDS = 86400.0
"""How long a root is watched after the last engine that used it: as far as the alert looks ahead. A model is
often exchanged while nothing runs."""
MOST_ROOTS = 32
_EXPIRED_SCANS = 3.0
_AGAIN_SECONDS = 60.0
"""After how long a path that led nowhere is followed again: an engine makes its cache when it fetches."""

FAULTS = (
    RootState.STALLED,
    RootState.NO_PERMISSION,
    RootState.MISSING,
    RootState.NOT_A_FOLDER,
    RootState.FAILED,
)
"""States of a configured root in which the source is not up, the worst first."""


@dataclass(slots=True)
class _Watched:
    """A root, by its path."""

    path: str
    kind: Kind
    label: str
    """its name, the same as long as it is watched"""
    origin: str
    seen_at: float
    probe: Probe | None = None
    """as of `probed_at`; its identity and disk outlive it"""
    probed_at: float = float("-inf")
    trouble: RootState | None = None
    scan: Scan | None = None
    scanned_at: float = float("-inf")
    users: set[int] = field(default_factory=set)
    """pids of the engines whose files lie here"""


class StoreWatch:
    """One per daemon."""

    def __init__(self, options: Storage, configured: Sequence[Store]) -> None:
        self.errors: Counter[str] = Counter()
        self.seconds = 0.0
        self.wanted: Wanted | None = None
        """set by whoever has the catalogue"""
        self._options = options
        self._roots: dict[str, _Watched] = {}
        self._places: dict[str, tuple[float, Place | None]] = {}
        self._looking: dict[str, Future[Place | None]] = {}
        self._locating: Guard[Place | None] = Guard()
        self._probing: Guard[None] = Guard()
        self._scanning: Guard[None] = Guard()
        self._scan: Future[None] | None = None
        """the last that was begun"""
        self._scanner = Scanner()
        self._probed_at = float("-inf")
        self.apply(options, configured)

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to tell of: most hosts without a configuration pay nothing."""
        return bool(self._roots)

    @property
    def expected(self) -> bool:
        """Whether a root was configured, so that silence is a fault."""
        return any(one.origin == "configured" for one in self._roots.values())

    def apply(self, options: Storage, configured: Sequence[Store]) -> None:
        """Use other settings from now on; what is known of roots that stay is kept."""
        self._options = options
        named = {str(entry.path): entry for entry in configured} if options.enabled else {}
        labels = unique(entry.name or short_name(path, Kind(entry.kind)) for path, entry in named.items())
        roots: dict[str, _Watched] = {}
        for (path, entry), label in zip(named.items(), labels, strict=True):
            one = _Watched(path, Kind(entry.kind), label, "configured", time.monotonic())
            before = self._roots.get(path)
            if before is not None and before.kind is one.kind:
                one.probe, one.probed_at, one.trouble = before.probe, before.probed_at, before.trouble
                one.scan, one.scanned_at, one.users = before.scan, before.scanned_at, before.users
            roots[path] = one
        if options.enabled and options.discover:
            for path, one in self._roots.items():
                if path not in roots and one.origin != "configured":
                    one.label = _another(one.label, roots.values())
                    roots[path] = one
        self._roots = roots
        self._probed_at = float("-inf")

    def see(self, instances: Iterable[Instance]) -> None:
        """Take note of where the files of the engines lie."""
        if not (self._options.enabled and self._options.discover):
            return
        now = time.monotonic()
        used: dict[str, set[int]] = {}
        live: set[str] = set()
        for instance in instances:
            for path in _files_of(instance):
                prefix = instance.namespace or ""
                key = f"{prefix}\0{path}"
                live.add(key)
                place = self._located(key, path, prefix, now)
                if place is not None:
                    used.setdefault(self._taken_in(place, now), set()).add(instance.root.pid)
        self._places = {key: known for key, known in self._places.items() if key in live}
        self._looking = {key: call for key, call in self._looking.items() if key in live}
        for path, one in self._roots.items():
            one.users = used.get(path, set())
            if one.users:
                one.seen_at = now
        for path, one in [*self._roots.items()]:
            forgotten = now - one.seen_at > KEPT_SECONDS or one.trouble is RootState.MISSING
            if one.origin != "configured" and not one.users and forgotten:
                del self._roots[path]
                self._inherit(one)

    def _inherit(self, gone: _Watched) -> None:
        """A container that takes over from another reaches the same folder by a path of its own."""
        for one in self._roots.values():
            if one.origin != "configured" and one.probe and gone.probe and _is_same(one.probe, gone.probe):
                one.label = gone.label
                return

    def _located(self, key: str, path: str, prefix: str, now: float) -> Place | None:
        """Where a path belongs, once that is known: links may lead to a mount that hangs."""
        call = self._looking.get(key)
        if call is not None and call.done():
            del self._looking[key]
            self._places[key] = (now, None if call.exception() is not None else call.result())
        at, place = self._places.get(key, (float("-inf"), None))
        if place is None and call is None and now - at > _AGAIN_SECONDS:
            begun = self._locating.begin(key, lambda: place_of(path, prefix))
            if begun is not None:
                self._looking[key] = begun
        return place

    def _taken_in(self, place: Place, now: float) -> str:
        """The root of a place: one that is watched already, by its path or as the same folder."""
        if place.root not in self._roots and len(self._roots) < MOST_ROOTS:
            label = _another(place.name, self._roots.values())
            self._roots[place.root] = _Watched(place.root, place.kind, label, "deployment", now)
            self._probed_at = float("-inf")
        return place.root

    async def refresh(self) -> None:
        """Take what was learned of free space, and begin to look again when it is time."""
        now = time.monotonic()
        for one in self._roots.values():
            waiting = self._probing.under_way(one.path)
            if waiting is not None and waiting > ANSWER_SECONDS and one.trouble is not RootState.STALLED:
                self._in_trouble(one, RootState.STALLED)
        if now - self._probed_at >= SPACE_SECONDS and self._roots:
            self._probed_at = now
            calls = [(one.probe, self._probe(one)) for one in self._roots.values()]
            unknown = [asyncio.wrap_future(call) for known, call in calls if call and known is None]
            if unknown:
                await asyncio.wait(unknown, timeout=FIRST_WORD_SECONDS)
            self.seconds = time.monotonic() - now
        fresh = [one for one in self._answering() if one.scanned_at == float("-inf")]
        if fresh:
            self._begin_scan(fresh)

    def _probe(self, one: _Watched) -> Future[None] | None:
        def look() -> None:
            try:
                found = probe(one.path)
            except NoSpace as error:
                self._in_trouble(one, error.state)
            else:
                one.probe, one.probed_at, one.trouble = found, time.monotonic(), None

        return self._probing.begin(one.path, look)

    def _in_trouble(self, one: _Watched, state: RootState) -> None:
        one.trouble = state
        self.errors[state.value] += 1

    async def scan(self, wait_seconds: float = 0.0) -> None:
        """Begin to look at the files of every root, one after the other, unless that goes on already."""
        roots = self._answering()
        self._scanner.forget({one.path for one in roots})
        self._begin_scan(roots)
        if self._scan is not None and wait_seconds:
            await asyncio.wait([asyncio.wrap_future(self._scan)], timeout=wait_seconds)

    def _answering(self) -> list[_Watched]:
        return [one for one in self._distinct() if one.trouble is None and one.probe is not None]

    def _begin_scan(self, roots: Sequence[_Watched]) -> None:
        begun = self._scanning.begin("scan", lambda: self._scan_all(roots)) if roots else None
        self._scan = begun or self._scan

    def _scan_all(self, roots: Sequence[_Watched]) -> None:
        """In a thread; every scan ends by its deadline."""
        identities = [one.probe.identity for one in self._distinct() if one.probe is not None]
        for one in roots:
            found = self._scanner.scan(
                Question(one.path, one.kind, self._options.max_entries, tuple(identities)),
                self._options.scan_deadline,
            )
            if found.state is not RootState.UP:
                self.errors[found.state.value] += 1
            one.scan, one.scanned_at = found, time.monotonic()

    def stores(self, owned: Mapping[str, frozenset[int]]) -> tuple[StoreFacts, ...]:
        """What is known now. ``owned``: deployment → its processes."""
        return stores(self._as_roots(owned), self.wanted)

    @property
    def state(self) -> str:
        """The state of the source: what the worst of the configured roots has."""
        states = {self._state(one) for one in self._roots.values() if one.origin == "configured"}
        return next((state.value for state in FAULTS if state in states), "up")

    def _distinct(self) -> list[_Watched]:
        """The configured roots in their order, then the others by age; of those that are the same folder the
        first, or one in its place that answers.
        """
        ordered = sorted(self._roots.values(), key=lambda one: one.origin != "configured")
        distinct: list[_Watched] = []
        for one in ordered:
            same = next((at for at, other in enumerate(distinct) if _are_one(one, other)), None)
            if same is None:
                distinct.append(one)
            elif distinct[same].trouble is not None and distinct[same].origin != "configured":
                distinct[same] = one
        return distinct

    def _as_roots(self, owned: Mapping[str, frozenset[int]]) -> list[Root]:
        return [
            self._as_root(one, owned)
            for one in self._distinct()
            if one.origin == "configured" or self._state(one) is not RootState.MISSING
        ]

    def _as_root(self, one: _Watched, owned: Mapping[str, frozenset[int]]) -> Root:
        state, known = self._state(one), one.probe
        same = [other for other in self._roots.values() if other is one or _are_one(one, other)]
        users = set().union(*(other.users for other in same))
        answers = state not in FAULTS or (one.trouble is None and self._is_fresh(one))
        return Root(
            name=min(same, key=lambda other: other.origin != "configured").label,
            kind=one.kind,
            origin=one.origin,
            state=state,
            deployments=tuple(sorted(name for name, pids in owned.items() if users & pids)),
            device=(known.space.device, known.space.size_bytes) if known else None,
            space=known.space if known and answers and self._is_fresh(one) else None,
            scan=one.scan if state in (RootState.UP, RootState.PARTIAL) else None,
        )

    def _state(self, one: _Watched) -> RootState:
        if one.trouble is not None:
            return one.trouble
        if one.probe is not None and not self._is_fresh(one):
            return RootState.STALLED
        expires = max(_EXPIRED_SCANS * self._options.scan_interval, 2 * self._options.scan_deadline)
        if one.scan is None or time.monotonic() - one.scanned_at > expires:
            return RootState.UNSCANNED
        return one.scan.state

    def _is_fresh(self, one: _Watched) -> bool:
        return time.monotonic() - one.probed_at <= 2 * SPACE_SECONDS + ANSWER_SECONDS


def _are_one(one: _Watched, other: _Watched) -> bool:
    """Whether two paths lead to the same folder."""
    return one.probe is not None and other.probe is not None and _is_same(one.probe, other.probe)


def _is_same(one: Probe, other: Probe) -> bool:
    return one.identity == other.identity


def _another(name: str, beside: Iterable[_Watched]) -> str:
    """A name that none of the others has."""
    return unique([*(one.label for one in beside), name])[-1]


def wanted(options: Storage, known: Catalog) -> Wanted | None:
    """The model that is planned. Raises ValueError, saying what is not known of it."""
    if options.next_model is None:
        return None
    try:
        identity = known.identify(options.next_model)
        if identity.model is None:
            raise UnknownModel("storage.next_model is not in the catalogue")
        model = identity.model
        quantization = known.quantization(model, options.next_quantization or identity.quantization)
        is_native = quantization == model.native_quantization
        found = (Container.SAFETENSORS,) if is_native else containers(quantization)
        size = file_bytes(model.architecture, quantization, found[0])
    except (UnknownModel, UnknownQuantization) as error:
        raise ValueError(str(error)) from None
    except (KeyError, IndexError):
        raise ValueError("storage.next_quantization is known by name alone, not by its sizes") from None
    return Wanted(model.id, quantization, is_native, size)


def _files_of(instance: Instance) -> tuple[str, ...]:
    """Absolute paths of what an engine loads, or of the cache it loads from; none where it is private."""
    if instance.namespace is None or instance.folder is None or instance.orphaned:
        return ()
    launch = instance.launch
    offload = launch.offload
    said = [launch.model, offload.gguf_path if offload else None, offload.kt_weight_path if offload else None]
    paths = []
    for one in said:
        if one and (one.startswith(("/", "./", "../")) or one.endswith(".gguf")):
            paths.append(one if one.startswith("/") else f"{instance.folder}/{one}")
    if not paths and instance.model_cache is not None:
        paths.append(instance.model_cache)
    return tuple(paths)
