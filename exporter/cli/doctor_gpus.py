"""What `doctor` says of GPUs: whether their drivers answer, each device, and who may be seen on it."""

from __future__ import annotations

import asyncio

from exporter.capacity.unified import UNIFIED
from exporter.cli.checks import Check, Verdict
from exporter.hardware import amd_source, nvidia_source
from exporter.hardware.amd_source import AmdSource
from exporter.hardware.driver import DIVIDED
from exporter.hardware.gpu import Gpu, GpuState, Number, by_number
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import NO_LIBRARY, NvmlSource
from exporter.hardware.supervision import GpuSource
from exporter.hardware.sweep import Sweep
from exporter.settings.options import Settings

_SEE_PROCESSES = (
    "nobody's memory on this device can be told apart: let the service read /sys/class/kfd "
    "(DeviceAllow=char-226 of the unit), or other users' /proc/PID/fdinfo (ptrace.conf.example)"
)

_SEE_SLICES = (
    "let the service open /dev/nvidia-caps (DeviceAllow=char-nvidia-caps of the unit); after MIG was "
    "switched on for the first time: systemctl restart deepseek-exporter"
)
_CREATE_SLICES = (
    "nothing can be served on it: create slices (nvidia-smi mig -i GPU -cgi PROFILE -C), or switch MIG off "
    "(nvidia-smi -i GPU -mig 0); if nvidia-smi -L lists some, the service may not see them: restart it"
)
_RESET = "when nothing runs on it: deepseek-exporter ctl release, then nvidia-smi --gpu-reset -i GPU"
_WITHOUT_LIST = (
    "what deployments hold on it is not known, so there is no deviation; RAM counts all that is in use once, "
    "expected or not"
)

Seen = set[Number]
"""Numbers and uuids by which a configuration may name devices"""


def gpus(settings: Settings) -> list[Check]:
    """Every driver and device; of AMD's nothing where there is none."""
    inventory = Inventory(None)
    amd = AmdSource(settings.nvml, inventory, settings.host.sys_path, settings.host.proc_path)
    has_amd = settings.amd.enabled and amd.is_here
    other = has_amd or bool(settings.foreign_exporters)
    declared = {device for entry in settings.deployments for device in entry.devices}
    needed = bool(declared) or bool(settings.expected_gpus)
    checks, seen = _nvml(settings, inventory, needed=needed and not other)
    if not settings.amd.enabled:
        checks.append(Check("amdgpu", "note", "switched off (amd.enabled)"))
    elif has_amd:
        more, seen_there = _amd(amd)
        checks += more
        seen = seen_there if seen is None else seen | (seen_there or set())
    # Of other exporters' devices `doctor` knows no numbers: these come after those that were ever seen here.
    missing = (
        sorted(declared - seen, key=by_number) if seen is not None and not settings.foreign_exporters else []
    )
    if missing:
        advice = (
            "correct `devices` of the deployment (a GPU in MIG mode is none: name its slices), or find out "
            "why the driver does not list the device"
        )
        checks.append(Check("gpus.declared", "problem", f"declared but not here: {missing}", advice))
    return checks


def _nvml(settings: Settings, inventory: Inventory, *, needed: bool) -> tuple[list[Check], Seen | None]:
    """NVIDIA's driver and devices, and what may be declared of them when it lists them."""
    if not settings.nvml.enabled:
        return [Check("nvml", "note", "switched off (nvml.enabled)")], None
    sweep = asyncio.run(_sweep(NvmlSource(settings.nvml, inventory)))
    if not sweep.up:
        verdict: Verdict = "problem" if needed or sweep.state != NO_LIBRARY else "note"
        return [Check("nvml", verdict, sweep.state, nvidia_source.ADVICE.get(sweep.state, ""))], None
    first = Check("nvml", "ok", f"driver {sweep.driver_version}, {sweep.visible} devices")
    checks = [first]
    for gpu in sweep.gpus:
        checks += [_device("nvml", gpu), *_mig(gpu), *_unified(gpu)]
    divided = {gpu.identity.number for gpu in sweep.gpus if gpu.identity.memory_kind == DIVIDED}
    # Also those that were listed and gave no answer.
    return checks, _names(sweep) | (set(range(sweep.visible)) - divided)


def _names(sweep: Sweep) -> Seen:
    """Numbers and uuids of what deployments can be placed on."""
    places = [gpu.identity for gpu in sweep.gpus if gpu.identity.memory_kind != DIVIDED]
    return {name for one in places for name in (one.number, *one.uuids)}


def _mig(gpu: Gpu) -> list[Check]:
    """What is to be known of a GPU that is, or will be, divided."""
    if gpu.reading is None or not gpu.reading.mig_enabled:
        return []
    name, modes, slices = f"nvml.{gpu.identity.number}.mig", gpu.reading.mig_enabled, gpu.reading.mig_slices
    checks = []
    if modes["current"] and slices is None:
        checks.append(Check(name, "problem", "on, and its slices cannot be listed", _SEE_SLICES))
    elif modes["current"] and slices == 0:
        checks.append(Check(name, "problem", "on, and no slice that can be seen", _CREATE_SLICES))
    elif modes["current"]:
        checks.append(Check(name, "ok", f"on, slices: {slices}"))
    if modes["current"] != modes["pending"]:
        found = f"switched {'on' if modes['pending'] else 'off'} at the next reset of the GPU"
        checks.append(Check(f"{name}.pending", "note", found, _RESET))
    return checks


def _unified(gpu: Gpu) -> list[Check]:
    """What can be known of a device whose memory is RAM: what its processes hold, and no more."""
    if gpu.identity.memory_kind != UNIFIED or gpu.reading is None:
        return []
    name = f"nvml.{gpu.identity.number}.memory"
    checks = [Check(name, "ok", "unified: RAM of the host, judged there")]
    if gpu.reading.processes is None:
        checks.append(Check(f"{name}.processes", "note", "not listed by this driver", _WITHOUT_LIST))
    return checks


def _amd(source: AmdSource) -> tuple[list[Check], Seen | None]:
    """AMD's driver and devices, and what may be declared of them when it lists them."""
    sweep = asyncio.run(_sweep(source))
    if not sweep.up:
        return [Check("amdgpu", "problem", sweep.state, amd_source.ADVICE.get(sweep.state, ""))], None
    checks = [Check("amdgpu", "ok", f"driver {sweep.driver_version}, {sweep.visible} devices")]
    for gpu in sweep.gpus:
        checks.append(_device("amdgpu", gpu))
        if gpu.reading is not None and gpu.reading.processes is None:
            name = f"amdgpu.{gpu.identity.number}.processes"
            checks.append(Check(name, "problem", "not readable", _SEE_PROCESSES))
    if source.errors:
        found = ", ".join(f"{reason} {times}" for reason, times in sorted(source.errors.items()))
        checks.append(Check("amdgpu.values", "note", f"values that are absent, by reason: {found}"))
    return checks, _names(sweep)


def _device(name: str, gpu: Gpu) -> Check:
    found = f"{gpu.identity.name}: {gpu.state}" + (f" ({gpu.reason})" if gpu.reason else "")
    verdict: Verdict = "ok" if gpu.reading else "note" if gpu.state is GpuState.SUSPENDED else "problem"
    return Check(f"{name}.{gpu.identity.number}", verdict, found)


async def _sweep(source: GpuSource) -> Sweep:
    try:
        sweep = await source.sweep(60)
        while sweep.state == "initialising":
            sweep = await source.sweep(60)
        return sweep
    finally:
        await source.close()
