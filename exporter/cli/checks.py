"""One thing that `doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. A `note` is fine as it is; a `problem` wants the advice followed."""

    id: str
    verdict: Verdict
    found: str
    advice: str = ""
