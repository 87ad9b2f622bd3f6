"""What `doctor` says of GPUs: whether their drivers answer, each device, and who may be seen on it."""

from __future__ import annotations

import asyncio

from exporter.cli.checks import Check, Verdict
from exporter.hardware import amd_source, nvidia_source
from exporter.hardware.amd_source import AmdSource
from exporter.hardware.gpu import Gpu, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import NO_LIBRARY, NvmlSource
from exporter.hardware.supervision import GpuSource
from exporter.hardware.sweep import Sweep
from exporter.settings.options import Settings

_SEE_PROCESSES = (
    "nobody's memory on this device can be told apart: let the service read /sys/class/kfd "
    "(DeviceAllow=char-226 of the unit), or other users' /proc/PID/fdinfo (ptrace.conf.example)"
)


def gpus(settings: Settings) -> list[Check]:
    """Every driver and device; of AMD's nothing where there is none."""
    inventory = Inventory(None)
    amd = AmdSource(settings.nvml, inventory, settings.host.sys_path, settings.host.proc_path)
    has_amd = settings.amd.enabled and amd.is_here
    other = has_amd or bool(settings.foreign_exporters)
    declared = {index for entry in settings.deployments for index in entry.devices}
    needed = bool(declared) or bool(settings.expected_gpus)
    checks, seen = _nvml(settings, inventory, needed=needed and not other)
    if not settings.amd.enabled:
        checks.append(Check("amdgpu", "note", "switched off (amd.enabled)"))
    elif has_amd:
        more, seen_there = _amd(amd)
        checks += more
        seen = seen_there if seen is None else seen | (seen_there or set())
    # Of other exporters' devices `doctor` knows no numbers: these come after those that were ever seen here.
    missing = sorted(declared - seen) if seen is not None and not settings.foreign_exporters else []
    if missing:
        advice = "correct `devices` of the deployment, or find out why the driver does not list the device"
        checks.append(Check("gpus.declared", "problem", f"declared but not here: {missing}", advice))
    return checks


def _nvml(settings: Settings, inventory: Inventory, *, needed: bool) -> tuple[list[Check], set[int] | None]:
    """NVIDIA's driver and devices, and their indices when it lists them."""
    if not settings.nvml.enabled:
        return [Check("nvml", "note", "switched off (nvml.enabled)")], None
    sweep = asyncio.run(_sweep(NvmlSource(settings.nvml, inventory)))
    if not sweep.up:
        verdict: Verdict = "problem" if needed or sweep.state != NO_LIBRARY else "note"
        return [Check("nvml", verdict, sweep.state, nvidia_source.ADVICE.get(sweep.state, ""))], None
    first = Check("nvml", "ok", f"driver {sweep.driver_version}, {sweep.visible} devices")
    return [first, *(_device("nvml", gpu) for gpu in sweep.gpus)], set(range(sweep.visible))


def _amd(source: AmdSource) -> tuple[list[Check], set[int] | None]:
    """AMD's driver and devices, and their indices when it lists them."""
    sweep = asyncio.run(_sweep(source))
    if not sweep.up:
        return [Check("amdgpu", "problem", sweep.state, amd_source.ADVICE.get(sweep.state, ""))], None
    checks = [Check("amdgpu", "ok", f"driver {sweep.driver_version}, {sweep.visible} devices")]
    for gpu in sweep.gpus:
        checks.append(_device("amdgpu", gpu))
        if gpu.reading is not None and gpu.reading.processes is None:
            name = f"amdgpu.{gpu.identity.index}.processes"
            checks.append(Check(name, "problem", "not readable", _SEE_PROCESSES))
    if source.errors:
        found = ", ".join(f"{reason} {times}" for reason, times in sorted(source.errors.items()))
        checks.append(Check("amdgpu.values", "note", f"values that are absent, by reason: {found}"))
    return checks, {gpu.identity.index for gpu in sweep.gpus}


def _device(name: str, gpu: Gpu) -> Check:
    found = f"{gpu.identity.name}: {gpu.state}" + (f" ({gpu.reason})" if gpu.reason else "")
    verdict: Verdict = "ok" if gpu.reading else "note" if gpu.state is GpuState.SUSPENDED else "problem"
    return Check(f"{name}.{gpu.identity.index}", verdict, found)


async def _sweep(source: GpuSource) -> Sweep:
    try:
        sweep = await source.sweep(60)
        while sweep.state == "initialising":
            sweep = await source.sweep(60)
        return sweep
    finally:
        await source.close()
