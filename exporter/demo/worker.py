"""The worker process of a recorded host: speaks the protocol of `hardware/worker.py` and loads no driver.

    python -m exporter.demo.worker PROFILE STARTED [INCIDENT]

STARTED is the monotonic time, which all processes of a machine share, at which the demo began.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from exporter.demo import profile, timeline
from exporter.demo.scene import Play

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Serve the supervisor until it closes stdin."""
    _die_with_parent()
    name, started, *alone = sys.argv[1:]
    host = profile.load(name)
    play = Play(host, timeline.script(host, *alone), {})
    version = host.devices.driver_version if host.devices is not None else ""
    _send("init", driver_version=version)
    told: dict[tuple[int, int], int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        _sweep(play, time.monotonic() - float(started), request["sweep"], set(request["skip"]), told)


def _sweep(play: Play, seconds: float, number: int, skip: set[int], told: dict[tuple[int, int], int]) -> None:
    scene = play.at(max(0.0, seconds))
    uuids = [one["identity"]["uuid"] for one in play.at(0.0).devices if one is not None]
    for (index, xid), times in scene.xids.items():
        if times > told.get((index, xid), 0):
            told[index, xid] = times
            if scene.devices[index] is None:  # a worker that starts later has missed it
                _send("xid", uuid=uuids[index], xid=xid, at=time.time())
    _send("begin", sweep=number, count=len(scene.devices))
    for index, device in enumerate(scene.devices):
        if index in skip:
            continue
        _send("start", sweep=number, index=index)
        if device is None:
            _send(
                "device_error",
                sweep=number,
                index=index,
                state="lost",
                reason="gpu_is_lost",
                call="nvmlDeviceGetHandleByIndex_v2",
            )
        else:
            _send("device", sweep=number, index=index, **device)
    _send("end", sweep=number)


def _send(kind: str, **fields: Any) -> None:
    """Send one message; ends the process when nobody listens any more."""
    try:
        sys.stdout.write(json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os._exit(0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the supervisor's to handle


if __name__ == "__main__":
    main()
