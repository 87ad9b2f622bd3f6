"""Turns files of one AMD device into values: memory, power, load, temperatures, errors, firmware, partitions.

Files and units: Documentation/gpu/amdgpu (driver-misc, thermal, ras), Documentation/hwmon/sysfs-interface.
Each function reads what is there; a file that is missing, empty, refused or absurd costs its own value only.
"""

from __future__ import annotations

from exporter.hardware.driver import Reading
from exporter.hardware.sysfs import Folder, names, parse_pairs

_MICRO = 1_000_000
_MOST_MICROWATTS = 20_000 * _MICRO  # a whole rack of them
_MOST_MICROJOULES = 2**63
_COLDEST_MILLICELSIUS, _HOTTEST_MILLICELSIUS = -50_000, 200_000  # beyond, silicon neither runs nor lasts
_SENSORS = range(1, 9)
_RAS_BLOCKS = ("umc", "gfx", "sdma", "mmhub")
"""The parts of a device with error correction that hold data: memory, compute, copy engines, memory hub. The
driver asks the firmware for each anew, which takes how long nobody has published, so no more than these."""
_MOST_ERRORS = 2**48
_FIRMWARE = ("smc", "sos", "mec")
"""Power management, security processor, compute: what release notes ask for. From `fw_version/`."""
_MOST_TEXT = 64


def memory(folder: Folder, *, unified: bool) -> Reading:
    """Device memory, what of it the processor reaches, and the RAM that the device may map (GTT), in bytes.

    Of a unified device, the carve-out of RAM ("VRAM") and the GTT are its memory together: models live in
    either. An MI300A has no carve-out at all.
    """
    vram = _pair(folder, "mem_info_vram")
    gtt = _pair(folder, "mem_info_gtt")
    values: Reading = {}
    _put(values, "gtt", gtt)
    _put(values, "visible_memory", _pair(folder, "mem_info_vis_vram"))
    if unified and not folder.has("mem_info_vram_total"):
        vram = (0, 0)
    total, used = (_sum(*pair) for pair in zip(vram, gtt, strict=True)) if unified else vram
    if not total:  # also 0 of a device that has no memory of its own
        return values
    _put(values, "memory", (total, used))
    if used is not None:
        values["memory_free_bytes"] = total - used
    return values


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _pair(folder: Folder, name: str) -> tuple[int | None, int | None]:
    """Total and used; a use above the total is none."""
    total, used = folder.integer(f"{name}_total"), folder.integer(f"{name}_used")
    if total is not None and used is not None and used > total:
        folder.errors[f"{name}_used"] = "malformed"
        used = None
    return total, used


def _put(values: Reading, name: str, pair: tuple[int | None, int | None]) -> None:
    for what, size in zip(("total", "used"), pair, strict=True):
        if size is not None:
            values[f"{name}_{what}_bytes"] = size


def power(folder: Folder) -> Reading:
    """Power draw and limit in watts, energy in joules where a counter exists.

    No device that answers draws 0 W: the second die of an MI250 says 0 for both, because the first one's
    figure is that of the package (aldebaran_ppt.c); so it is left out.
    """
    sensors = _hwmon(folder)
    values: Reading = {}
    for name in ("power1_average", "power1_input"):
        microwatts = sensors.integer(name, most=_MOST_MICROWATTS) if sensors else None
        if microwatts:
            values["power_watts"] = microwatts / _MICRO
            break
    if sensors is None:
        return values
    if limit := sensors.integer("power1_cap", most=_MOST_MICROWATTS):
        values["power_limit_watts"] = limit / _MICRO
    if energy := sensors.integer("energy1_input", most=_MOST_MICROJOULES):
        values["energy_joules"] = energy / _MICRO
    return values


def load(folder: Folder) -> Reading:
    """Shares of time in which the device computed and moved memory."""
    values: Reading = {}
    for file, name in (
        ("gpu_busy_percent", "utilization_ratio"),
        ("mem_busy_percent", "memory_bandwidth_utilization_ratio"),
    ):
        percent = folder.integer(file, most=100)
        if percent is not None:
            values[name] = percent / 100
    return values


def health(folder: Folder) -> Reading:
    """Temperatures by the sensor's own label (edge, junction, mem), and errors that were corrected or not."""
    values: Reading = {}
    sensors = _hwmon(folder)
    celsius = {}
    for number in _SENSORS if sensors else ():
        assert sensors is not None
        if not sensors.has(f"temp{number}_input"):
            continue
        label = (sensors.text(f"temp{number}_label") or f"temp{number}")[:_MOST_TEXT]
        milli = sensors.integer(
            f"temp{number}_input", least=_COLDEST_MILLICELSIUS, most=_HOTTEST_MILLICELSIUS
        )
        if milli is not None:
            celsius[label] = milli / 1000
    if celsius:
        values["temperature_celsius"] = celsius
    if errors := _errors(folder):
        values["ecc_errors"] = errors
    return values


def _errors(folder: Folder) -> dict[str, int]:
    """Sums over the blocks; none while one of them does not answer, because the sum would fall."""
    sums: dict[str, int] = {}
    for block in _RAS_BLOCKS:
        name = next((one for one in (f"ras/{block}_err_count", f"ras/aca_{block}") if folder.has(one)), None)
        if name is None:
            continue
        counts = parse_pairs(folder.text(name) or "")
        for kind, key in (("corrected", "ce"), ("uncorrected", "ue")):
            if key not in counts or counts[key] > _MOST_ERRORS:
                return {}
            sums[kind] = sums.get(kind, 0) + counts[key]
    return sums


def firmware(folder: Folder) -> Reading:
    """Versions of the firmware that runs, as the driver prints them; none for a part that was not loaded."""
    found = {"vbios": folder.text("vbios_version")}
    for part in _FIRMWARE:
        text = folder.text(f"fw_version/{part}_fw_version")
        found[part] = None if text is None or not text.removeprefix("0x").strip("0") else text
    known = {part: text[:_MOST_TEXT] for part, text in found.items() if text}
    return {"firmware": known} if known else {}


def partitioning(folder: Folder) -> Reading:
    """How the device is divided: compute (SPX, DPX, CPX …) and memory (NPS1, NPS4 …)."""
    found = {kind: folder.text(f"current_{kind}_partition") for kind in ("compute", "memory")}
    known = {kind: text[:_MOST_TEXT] for kind, text in found.items() if text and text != "UNKNOWN"}
    return {"partitioning": known} if known else {}


def _hwmon(folder: Folder) -> Folder | None:
    """The device's sensors; its number changes whenever the driver is loaded."""
    try:
        number = next((one for one in names(f"{folder.path}/hwmon") if one.startswith("hwmon")), None)
    except OSError:
        return None
    return None if number is None else Folder(f"{folder.path}/hwmon/{number}", folder.errors)
