"""Talks to the service manager over $NOTIFY_SOCKET (sd_notify(3)); does nothing where there is none."""

from __future__ import annotations

import os
import socket
import time


def send(*lines: str) -> bool:
    """Send state lines such as "READY=1"; False when there is no service manager or it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
            client.setblocking(False)
            client.connect(address)
            client.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def ready(status: str) -> None:
    """The service is up."""
    send("READY=1", f"STATUS={status}")


def reloading() -> None:
    """A reload begins; `ready` ends it. The time is what Type=notify-reload wants."""
    send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The service goes down."""
    send("STOPPING=1")


def watchdog_seconds() -> float | None:
    """How often the service manager wants a sign of life, or None; three signs are sent in that time."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit() and int(text)) or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 1e6 / 3
