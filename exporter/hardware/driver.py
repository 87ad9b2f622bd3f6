"""What every worker's driver has in common, whichever vendor's: how it is asked and how it fails.

Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

from typing import Any, Protocol

DIVIDED = "divided"
"""Kind of memory of a GPU in MIG mode: it has none beside that of its slices."""

Reading = dict[str, Any]
"""Plain JSON data: {"identity", "values", "processes", "errors"}; what a device does not give is left out."""


class Unreadable(Exception):
    """A device, or the driver as a whole, cannot be read.

    `reason` is a short name for labels, `code` the vendor's number, `state` the device's state after it (of
    GpuState), `fatal` whether only a new process can go on, `identity` what is known of the device still.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: int = 0,
        call: str = "",
        state: str = "error",
        fatal: bool = False,
        identity: Reading | None = None,
    ) -> None:
        super().__init__(f"{call}: {reason}" if call else reason)
        self.reason = reason
        self.code = code
        self.call = call
        self.state = state
        self.fatal = fatal
        self.identity = identity


class Driver(Protocol):
    """A driver that can be read; its constructor raises Unreadable when it cannot be used."""

    version: str

    def count(self) -> int:
        """Devices it knows now. Raises Unreadable."""

    def read(self, index: int, *, links: bool = False) -> Reading:
        """Everything of one device. Raises Unreadable when the device as a whole does not answer."""
