"""The worker process of a recorded host: a driver that reads a scene, behind the protocol of all workers.

    python -m exporter.demo.worker PROFILE STARTED [INCIDENT]

STARTED is the monotonic time, which all processes of a machine share, at which the demo began.
"""

from __future__ import annotations

import sys
import time

from exporter.demo import profile, timeline
from exporter.demo.scene import Play, Scene
from exporter.hardware import serving
from exporter.hardware.driver import Reading, Unreadable


class SceneDriver:
    """The driver of a recorded host; one sweep reads one moment. It loads no library."""

    def __init__(self, play: Play, started: float, channel: serving.Channel) -> None:
        devices = play.profile.devices
        self.version = devices.driver_version if devices is not None else ""
        self._play = play
        self._started = started
        self._channel = channel
        self._identities = [one["identity"] for one in play.at(0.0).devices if one is not None]
        self._told: dict[tuple[int, int], int] = {}
        self._now: Scene = play.at(0.0)

    def count(self) -> int:
        """Devices; a new sweep begins with it."""
        self._now = self._play.at(max(0.0, time.monotonic() - self._started))
        for (index, xid), times in self._now.xids.items():
            if times > self._told.get((index, xid), 0):
                self._told[index, xid] = times
                if self._now.devices[index] is None:  # a worker that starts later has missed it
                    self._channel.send("xid", uuid=self._identities[index]["uuid"], xid=xid, at=time.time())
        return len(self._now.devices)

    def read(self, index: int, *, links: bool = False) -> Reading:
        """One device. Raises Unreadable while it is lost."""
        device = self._now.devices[index]
        if device is None:
            raise Unreadable(
                "gpu_is_lost",
                call="nvmlDeviceGetHandleByIndex_v2",
                state="lost",
                identity=self._identities[index],
            )
        return device


def main() -> None:
    """Serve the supervisor until it closes stdin."""
    channel = serving.open_channel()
    name, started, *alone = sys.argv[1:]
    host = profile.load(name)
    play = Play(host, timeline.script(host, *alone), {})
    serving.serve(channel, serving.start(channel, lambda: SceneDriver(play, float(started), channel)))


if __name__ == "__main__":
    main()
