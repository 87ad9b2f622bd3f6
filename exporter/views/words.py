"""How facts are put into words: sizes, ages, places, and other people's names made harmless.

Names of deployments, models, devices and holders are foreign input. A page escapes them and a terminal does
not, so control characters, direction overrides and endless lengths end here, once for both.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from exporter.units import format_bytes

NAME_MOST = 64
PROSE_MOST = 600
UNKNOWN = "–"

_JOINER = "\u200d"  # zero width joiner: inside one emoji, harmless
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that a reader cannot see and a terminal or a line of text may obey."""


def shown(text: object, most: int = NAME_MOST) -> str:
    """Foreign text as one visible line of at most `most` characters; what cannot be seen becomes `�`."""
    whole = str(text)
    line = "".join(
        " " if one in "\t\n\r" else "�" if one != _JOINER and unicodedata.category(one) in _HIDDEN else one
        for one in whole[: most + 1]
    )
    return line if len(line) <= most else line[: most - 1] + "…"


def size(size_bytes: int | None) -> str:
    """A size, or a dash where it is not known."""
    return UNKNOWN if size_bytes is None else format_bytes(size_bytes)


def between(low_bytes: int, high_bytes: int) -> str:
    """Both ends of a size where they can be told apart."""
    low, high = format_bytes(low_bytes), format_bytes(high_bytes)
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number}–{high}" if high.endswith(unit) and low_bytes >= 0 else f"{low} to {high}"


def share(ratio: float) -> str:
    """A ratio as a signed percentage."""
    return f"{ratio:+.1%}".replace("-", "−").replace("%", " %")


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 d`: whole numbers of the unit in which people would say it."""
    whole = max(0, int(seconds))
    for unit, length, beyond in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if whole < beyond:
            return f"{whole // length} {unit}"
    return f"{whole // 86_400} d"


def watts(power: float) -> str:
    """`412 W`, and `2.9 kW` from a kilowatt on."""
    return f"{power / 1000:.1f} kW" if power >= 1000 else f"{power:.0f} W"


def kilowatt_hours(joules: float) -> str:
    """Energy as people pay for it."""
    return f"{joules / 3.6e6:,.1f} kWh"


def gigabits(bytes_per_second: float) -> str:
    """`400 Gb/s`: the speed of a link, as its hardware is named."""
    return f"{bytes_per_second * 8 / 1e9:,.4g} Gb/s"


def count(number: int, thing: str) -> str:
    """`1 GPU`, `8 GPUs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def ranges(numbers: Iterable[int | str]) -> str:
    """`0–3, 6, 7:2`: device indices with runs of neighbours joined, then MIG slices as they are named."""
    numbers = list(dict.fromkeys(numbers))
    runs: list[list[int]] = []
    for index in sorted(one for one in numbers if isinstance(one, int)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    indices = [str(a) if a == b else f"{a}–{b}" if b > a + 1 else f"{a}, {b}" for a, b in runs]
    return ", ".join([*indices, *(shown(one) for one in numbers if isinstance(one, str))])


def sentence(text: str) -> str:
    """With a capital letter at its start."""
    return text[:1].upper() + text[1:]


def lowered(text: str) -> str:
    """To go on after a colon; what begins like an abbreviation stays."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
