"""Puts a recorded host in the place of the real one: the edges that the pipeline reads, and nothing else.

A folder with /proc and /sys, a worker that speaks for the driver, and engines that answer on loopback.
Discovery, telemetry, arithmetic and rendering are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.demo import profile, timeline
from exporter.demo.proc_tree import Tree, files
from exporter.demo.profile import Profile
from exporter.demo.scene import Play, Serving
from exporter.demo.server import Doors

TICK_SECONDS = 0.5
_CONFIGURATION = """\
pool = "demo"

[alerting]
instance = "{name}"
# Minutes of the alert rules are seconds here: an incident lasts no longer.
time_scale = 0.0167
"""


class Stage:
    """One recorded host that is played. The files of its first moment are there from the beginning."""

    def __init__(
        self, host: Profile, alone: str | None, directory: Path, *, begin_at_seconds: float = 0.0
    ) -> None:
        """`begin_at_seconds`: how far into the script it begins. Raises UnknownProfile or OSError."""
        script = timeline.script(host, alone)
        self.profile = host
        self.directory = directory
        self.started = time.monotonic() - begin_at_seconds
        self._alone = alone
        self._doors = Doors([one.name for one in host.engines if one.answers])
        self._play = Play(host, script, self._doors.ports)
        self._tree = Tree(directory)
        self.configuration.write_text(_CONFIGURATION.format(name=host.name))
        self._show()

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def worker_command(self) -> tuple[str, ...]:
        """Starts the worker that speaks for the GPU driver."""
        alone = () if self._alone is None else (self._alone,)
        module = ("-I", "-OO", "-m", "exporter.demo.worker")
        return (sys.executable, *module, self.name, repr(self.started), *alone)

    @property
    def control_socket(self) -> Path:
        return self.directory / "control.sock"

    @property
    def configuration(self) -> Path:
        """A configuration file of its own: that of the real host declares what the real host serves."""
        return self.directory / "config.toml"

    @property
    def flags(self) -> dict[str, dict[str, Any]]:
        """The options by which the daemon reads this host, writes nothing into the real one's state, and is
        not taken for its daemon."""
        return {
            "host": {
                "proc_path": str(self.directory / "proc"),
                "sys_path": str(self.directory / "sys"),
            },
            "nvml": {"enabled": "true" if self._has("nvidia") else "false"},
            "amd": {"enabled": "true" if self._has("amd") else "false"},
            "state": {"directory": str(self.directory / "state"), "control_socket": str(self.control_socket)},
        }

    def strike(self) -> None:
        """Take the files away."""
        shutil.rmtree(self.directory, ignore_errors=True)

    async def play(self) -> None:
        """Let time pass, until cancelled."""
        await self._doors.open(self._serving)
        try:
            while True:
                self._show()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            self._doors.close()

    def _has(self, vendor: str) -> bool:
        return self.profile.devices is not None and self.profile.devices.vendor == vendor

    def _show(self) -> None:
        self._tree.show(files(self._play.at(time.monotonic() - self.started), self.profile))

    def _serving(self, name: str) -> Serving | None:
        return self._play.at(time.monotonic() - self.started).serving.get(name)


@contextlib.contextmanager
def stage(name: str, alone: str | None = None) -> Iterator[Stage]:
    """A recorded host by its name, with all its incidents or `alone` one; its folder goes with it.

    Raises UnknownProfile, or OSError when there is no place for its files.
    """
    host = profile.load(name)
    timeline.script(host, alone)
    directory = Path(tempfile.mkdtemp(prefix="deepseek-exporter-demo-"))
    try:
        yield Stage(host, alone, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
