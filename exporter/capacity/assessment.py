"""Capacity, commitment, headroom and overcommit of every device and of RAM.

Two bounds: terms that can only be estimated count at their low end in `low` and at their high end in `high`.
A page is decided on `low`, so that a guess never wakes anybody; a ticket on `high`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.capacity import attribution, comparison, ram, rollout
from exporter.capacity.attribution import Holding
from exporter.capacity.bounds import ZERO, Bounds, sum_bounds
from exporter.capacity.comparison import Deviation, KvUse
from exporter.capacity.joining import differences
from exporter.capacity.links import LinkStatus
from exporter.capacity.observation import Declared, Observation, Running
from exporter.capacity.tolerance import Tolerance
from exporter.capacity.unified import in_ram, unified
from exporter.engines.process import ProcessMemory
from exporter.hardware.gpu import Gpu, GpuReading

if TYPE_CHECKING:
    from exporter.capacity.confined import Confined, Limit
    from exporter.capacity.decode import DecodeBound

LOADED_SHARE = 0.98
"""A deployment that holds this share of its weights has loaded them; the rest is rounding and padding."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a device, or RAM, can give and what is promised of it, in bytes."""

    capacity: int
    committed: Bounds
    pending: Bounds = ZERO
    """of the committed bytes, those that are still to be loaded: by a deployment that loads, or one that is
    required and does not run"""
    optional: Bounds | None = None
    """what the largest optional deployment that does not run would need beside them; None: there is none"""
    outgoing: int | None = None
    """of the committed bytes (low end), those of deployments that a younger generation of themselves is about
    to replace; None: no roll-out goes on"""

    @property
    def headroom(self) -> Bounds:
        """Capacity − committed; negative means overcommitted. `low` belongs to the low commitment."""
        return Bounds(self.capacity - self.committed.low, self.capacity - self.committed.high)

    @property
    def overcommit_ratio(self) -> dict[str, float]:
        """Committed / capacity, by bound; nothing when there is no capacity."""
        if self.capacity <= 0:
            return {}
        return {bound: size / self.capacity for bound, size in self.committed.items()}

    @property
    def pending_ratio(self) -> dict[str, float]:
        """The `overcommit_ratio` of the bounds at which something is still to be loaded."""
        return {
            bound: ratio for bound, ratio in self.overcommit_ratio.items() if getattr(self.pending, bound) > 0
        }

    @property
    def optional_ratio(self) -> dict[str, float]:
        """What `overcommit_ratio` would be if the largest optional deployment started, where there is one."""
        if self.optional is None or self.capacity <= 0:
            return {}
        return {bound: size / self.capacity for bound, size in (self.committed + self.optional).items()}

    @property
    def settled_ratio(self) -> float | None:
        """What `overcommit_ratio` (low) will be when the roll-out is over; None while none goes on."""
        if self.outgoing is None or self.capacity <= 0:
            return None
        return (self.committed.low - self.outgoing) / self.capacity


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A deployment as it stands now. What follows `pids` is empty or None while it does not run."""

    declared: Declared
    state: str
    """declared_only, loading, warm, sleeping, unreachable, orphaned or unknown"""
    pids: frozenset[int]
    running_as: Running | None = None
    matches: Mapping[str, bool] = field(default_factory=dict)
    """declared field → whether what runs has the same"""
    deviation: Mapping[str, Deviation] = field(default_factory=dict)
    """device → observed − expected"""
    tolerance: Mapping[str, int] = field(default_factory=dict)
    """device → bytes by which the two may differ"""
    resident_ratio: float | None = None
    kv: KvUse | None = None
    plan_error: Mapping[str, float] = field(default_factory=dict)
    link: LinkStatus | None = None
    """to its other nodes; None where all of it is on one, or nothing tells by what it reaches them"""
    active: bool | None = None
    """whether it works now; None where that is not known"""
    plan_shortfall_tokens: int | None = None
    """planned tokens − KV capacity, by the engine's word or the optimistic end of the estimate; also while it
    does not run
    """

    @property
    def running(self) -> bool:
        return bool(self.pids)


@dataclass(frozen=True, slots=True)
class Assessment:
    """The judgement of one observation. Devices that gave no reading are absent."""

    devices: Mapping[str, Commitment]
    held: Mapping[str, tuple[Holding, ...]]
    host: Commitment | None
    host_held: Mapping[str, ProcessMemory]
    """RAM of each running deployment"""
    host_other: int | None
    """RAM in use by everything else, bytes"""
    deployments: tuple[DeploymentStatus, ...]
    reclaimable: Mapping[str, int] = field(default_factory=dict)
    """device → bytes of KV pools that no request uses now"""
    confined: Mapping[str, tuple[Confined, ...]] = field(default_factory=dict)
    """deployment → what it may use below the host's RAM: of a cgroup, of NUMA nodes"""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """deployment → whether its cgroup has a limit, and what the kernel says of it"""
    decode: Mapping[str, DecodeBound] = field(default_factory=dict)
    """deployment → tokens a second that the bandwidth of RAM allows one sequence"""


def assess(
    observation: Observation,
    *,
    gpu_margin: int,
    host_margin: int,
    tolerance: Tolerance | None = None,
    rollout_seconds: float = 0.0,
) -> Assessment:
    """Judge one observation; the margins are bytes that are never promised.

    ``rollout_seconds``: how long two generations of one deployment on a device count as a roll-out.
    """
    owned = observation.owned
    outgoing = rollout.outgoing(observation, rollout_seconds)
    held = {
        gpu.identity.uuid: holdings
        for gpu in observation.gpus
        if gpu.reading
        and (holdings := attribution.device_holdings(gpu, owned, _placed(gpu, observation))) is not None
    }
    host_held = attribution.host_holdings(owned, observation.memory)
    devices = {
        gpu.identity.uuid: _device_commitment(
            gpu.identity.uuid,
            _device_capacity(gpu.reading, gpu_margin),
            held,
            observation,
            outgoing.get(gpu.identity.uuid),
        )
        for gpu in observation.gpus
        if gpu.reading and gpu.identity.uuid in held and gpu.reading.memory_total_bytes is not None
    }
    host, host_other = None, None
    if observation.host is not None:
        host_other, on_devices = _through_devices(observation, held).beside(
            ram.others(observation.host, host_held)
        )
        committed = ram.committed(observation.declared, host_held, set(owned)) + on_devices
        spare = min(host_other, ram.spare_hugepages(observation, host_held))
        host = Commitment(
            observation.host.memory_total_bytes - host_margin,
            committed + Bounds(host_other - spare, host_other),
        )
    allowed = tolerance or Tolerance()
    statuses = tuple(_status(one, observation, held, host_held, allowed) for one in observation.declared)
    return Assessment(devices, held, host, host_held, host_other, statuses, _reclaimable(observation, held))


def _status(
    deployment: Declared,
    observation: Observation,
    held: Mapping[str, tuple[Holding, ...]],
    host_held: Mapping[str, ProcessMemory],
    tolerance: Tolerance,
) -> DeploymentStatus:
    pids = observation.owned.get(deployment.name, frozenset())
    running = observation.running.get(deployment.name) if pids else None
    loaded = _state(deployment, observation.owned, held, host_held)
    telemetry = running.telemetry if running is not None else None
    shortfall = comparison.plan_shortfall(deployment, telemetry)
    if not pids:
        return DeploymentStatus(deployment, loaded, pids, plan_shortfall_tokens=shortfall)
    is_declared = deployment.origin == "declared"
    return DeploymentStatus(
        deployment,
        _state_by_word(loaded, running),
        pids,
        running_as=running,
        matches=differences(deployment, running) if running is not None and is_declared else {},
        deviation=(deviation := comparison.deviations(deployment, held, _untold(observation.gpus, pids))),
        tolerance=comparison.tolerances(deployment, deviation, tolerance),
        resident_ratio=comparison.resident_ratio(deployment, host_held.get(deployment.name)),
        kv=comparison.kv_use(deployment, telemetry),
        plan_error=comparison.plan_errors(deployment, telemetry),
        plan_shortfall_tokens=shortfall,
    )


def _state_by_word(loaded: str, running: Running | None) -> str:
    """The state by what is held, corrected by what the engine says of itself."""
    if running is None:
        return loaded
    if running.orphaned:
        return "orphaned"
    if running.answered is None:
        return loaded
    if running.answered:
        if running.state in ("loading", "sleeping"):
            return running.state
        # An engine answers when it has loaded; where its need is not known, so is what it should hold.
        return "warm" if loaded == "loading" else loaded
    if running.state == "loading":
        return "loading"
    if running.reason == "key_required":
        return loaded
    return "loading" if loaded == "loading" and not running.has_answered else "unreachable"


def _reclaimable(observation: Observation, held: Mapping[str, tuple[Holding, ...]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for deployment in observation.declared:
        if deployment.name not in observation.owned:
            continue
        running = observation.running.get(deployment.name)
        for uuid, size in comparison.reclaimable(deployment, running, held).items():
            found[uuid] = found.get(uuid, 0) + size
    return found


def _device_capacity(reading: GpuReading, margin: int) -> int:
    assert reading.memory_total_bytes is not None
    return reading.memory_total_bytes - (reading.memory_reserved_bytes or 0) - margin


@dataclass(frozen=True, slots=True)
class _ThroughDevices:
    """RAM of deployments that lies in unified devices, and so in no process."""

    held: int
    committed: Bounds
    untold: Bounds
    """promised to what runs on devices whose driver does not say what it holds there"""

    def beside(self, in_use: int) -> tuple[int, Bounds]:
        """What others have of the RAM in use outside processes of deployments, and what is promised here
        beyond it. No byte counts twice: of what is held here, some may be resident in processes too, and
        what is not told may be what others seem to have.
        """
        other = max(0, in_use - self.held)
        return other, self.committed.beyond(self.held - in_use) + self.untold.beyond(other)


def _placed(gpu: Gpu, observation: Observation) -> dict[str, int]:
    """Deployments that run and should be on a device → bytes that they should hold there, at least."""
    uuid = gpu.identity.uuid
    return {
        one.name: device_expected(one, uuid).low
        for one in observation.declared
        if one.name in observation.owned and uuid in one.ranks
    }


def _through_devices(observation: Observation, held: Mapping[str, tuple[Holding, ...]]) -> _ThroughDevices:
    total_held, total, untold = 0, ZERO, ZERO
    for gpu in unified(observation.gpus):
        uuid = gpu.identity.uuid
        here = {one.holder: one.size_bytes for one in held.get(uuid, ()) if one.kind == "deployment"}
        on_device = silent = ZERO
        for deployment in observation.declared:
            claim = _claim(deployment, uuid, here, observation.owned)
            pids = observation.owned.get(deployment.name)
            if pids and uuid in _untold((gpu,), pids):
                told = here.get(deployment.name, 0)
                silent += claim.beyond(told)
                claim = Bounds(told, told)
            on_device += claim
        total_held += in_ram(gpu, sum(here.values()))
        total += Bounds(in_ram(gpu, on_device.low), in_ram(gpu, on_device.high))
        untold += Bounds(in_ram(gpu, silent.low), in_ram(gpu, silent.high))
    return _ThroughDevices(total_held, total, untold)


def _untold(gpus: Iterable[Gpu], pids: frozenset[int]) -> frozenset[str]:
    """Devices whose driver does not say what these processes hold."""
    return frozenset(
        gpu.identity.uuid
        for gpu in gpus
        if gpu.reading is not None
        and (
            gpu.reading.processes is None
            or any(one.pid in pids and one.used_bytes is None for one in gpu.reading.processes)
        )
    )


def _device_commitment(
    uuid: str,
    capacity: int,
    held: Mapping[str, tuple[Holding, ...]],
    observation: Observation,
    outgoing: frozenset[str] | None,
) -> Commitment:
    """What runs counts as what it holds and may still take; what must find room, as expected."""
    here = {one.holder: one.size_bytes for one in held[uuid] if one.kind == "deployment"}
    strangers = sum(one.size_bytes for one in held[uuid] if one.kind != "deployment")
    committed, pending = Bounds(strangers, strangers), ZERO
    optional: Bounds | None = None
    leaving = 0
    for deployment in observation.declared:
        expected = device_expected(deployment, uuid)
        claim = _claim(deployment, uuid, here, observation.owned)
        committed += claim
        if deployment.name in observation.owned:
            holds = here.get(deployment.name, 0)
            if not _is_loaded_on(deployment, uuid, holds):
                pending += expected.beyond(holds)
            if outgoing and deployment.name in outgoing:
                leaving += claim.low
        elif deployment.required:
            pending += expected
        elif expected.high:
            optional = expected if optional is None else max(optional, expected, key=lambda one: one.low)
    return Commitment(capacity, committed, pending, optional, leaving if outgoing else None)


def _claim(
    deployment: Declared, uuid: str, here: Mapping[str, int], owned: Mapping[str, frozenset[int]]
) -> Bounds:
    """What a deployment counts for on a device; ``here`` is what each holds there."""
    if deployment.name in owned:
        return device_expected(deployment, uuid).at_least(here.get(deployment.name, 0))
    return device_expected(deployment, uuid) if deployment.required else ZERO


def _is_loaded_on(deployment: Declared, uuid: str, holds: int) -> bool:
    """Whether it holds its weights on this device: what follows is reserved by an engine in one go."""
    if deployment.footprint is None:
        return True
    ranks = zip(deployment.ranks, deployment.footprint.devices, strict=False)
    terms = [rank.components.get("weights") for at, rank in ranks if at == uuid]
    weights = sum(term.low_bytes for term in terms if term is not None)
    return holds >= weights * LOADED_SHARE


def device_expected(deployment: Declared, uuid: str) -> Bounds:
    """What a deployment should hold on one device once warm."""
    if deployment.footprint is None:
        return ZERO
    ranks = zip(deployment.ranks, deployment.footprint.devices, strict=False)
    return sum_bounds(rank.total for at, rank in ranks if at == uuid)


def _state(
    deployment: Declared,
    owned: Mapping[str, frozenset[int]],
    held: Mapping[str, tuple[Holding, ...]],
    host_held: Mapping[str, ProcessMemory],
) -> str:
    if deployment.name not in owned:
        return "declared_only"
    if deployment.footprint is None:
        return "unknown"
    # Of ranks on another node, and of a device that is lost, nothing is known here; the others tell.
    for uuid in {one for one in deployment.ranks if one in held} or set(deployment.ranks):
        on_device = sum(one.size_bytes for one in held.get(uuid, ()) if one.holder == deployment.name)
        if not _is_loaded_on(deployment, uuid, on_device):
            return "loading"
    in_ram = host_held.get(deployment.name)
    weights = deployment.footprint.host.components.get("weights")
    if weights is not None and in_ram is not None:
        resident = in_ram.anonymous + in_ram.file + in_ram.shared + in_ram.hugepages
        if resident < weights.low_bytes * LOADED_SHARE:
            return "loading"
    return "warm"
