"""AMD devices by PCI device id: the marketing name, and whether the processor shares its memory.

Names are those of libdrm's data/amdgpu.ids (mirror.fdo.drm at 06675b4), by which ROCm and DRM programs name a
device too; those that are not in it have a source of their own. The table holds what language models run on;
any other device is named by its board's `product_name`, else by its number.
"""

from __future__ import annotations

NAMES: dict[tuple[int, int | None], str] = {
    (0x7408, None): "AMD Instinct MI250X",
    (0x740C, None): "AMD Instinct MI250X / MI250",
    (0x740F, None): "AMD Instinct MI210",
    (0x7448, None): "AMD Radeon Pro W7900",
    (0x7449, None): "AMD Radeon Pro W7800 48GB",
    (0x744A, None): "AMD Radeon Pro W7900 Dual Slot",
    (0x744B, None): "AMD Radeon Pro W7900D",
    (0x744C, 0xC8): "AMD Radeon RX 7900 XTX",
    (0x744C, 0xCC): "AMD Radeon RX 7900 XT",
    (0x744C, 0xCE): "AMD Radeon RX 7900 GRE",
    (0x745E, None): "AMD Radeon Pro W7800",
    (0x747E, 0xC8): "AMD Radeon RX 7800 XT",
    (0x74A0, None): "AMD Instinct MI300A",
    (0x74A1, None): "AMD Instinct MI300X",
    (0x74A2, None): "AMD Instinct MI308X",
    (0x74A5, None): "AMD Instinct MI325X",
    (0x74A8, None): "AMD Instinct MI308X HF",
    (0x74A9, None): "AMD Instinct MI300X HF",
    (0x74B5, None): "AMD Instinct MI300X VF",
    (0x74B6, None): "AMD Instinct MI308X",
    (0x74BD, None): "AMD Instinct MI300X HF",
    (0x7550, 0xC0): "AMD Radeon RX 9070 XT",
    (0x7550, 0xC3): "AMD Radeon RX 9070",
    (0x7551, 0xC0): "AMD Radeon AI PRO R9700",
    (0x75A0, None): "AMD Instinct MI350X",
    (0x75A3, None): "AMD Instinct MI355X",
    (0x75B0, None): "AMD Instinct MI350X VF",
    (0x75B3, None): "AMD Instinct MI355X VF",
    # Strix Halo: rocminfo and amdgpu_top in ds4#475 and magnitude#44
    (0x1586, None): "AMD Radeon 8060S Graphics",
}
"""(device id, revision, or None for any) → name"""

APUS = frozenset({0x1586, 0x74A0})
"""Of these, the devices whose memory is the processor's too; for others sysfs decides."""


def name_of(device_id: int | None, revision: int | None) -> str | None:
    """The name of a device; None when the table does not have it."""
    if device_id is None:
        return None
    return NAMES.get((device_id, revision)) or NAMES.get((device_id, None))
