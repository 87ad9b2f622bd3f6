"""What the daemon's tests share: a fake driver for its worker, and a service manager's socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fake_nvml.build import compiler
from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeDevice

DriverFactory = Callable[[Sequence[FakeDevice]], FakeDriver]


@pytest.fixture
def make_driver(tmp_path: Path) -> DriverFactory:
    """Make a fake driver to start a daemon with."""
    if compiler() is None:
        pytest.fail("no C compiler, so there is no driver to test against: apt install gcc libc6-dev")
    return lambda devices: FakeDriver.create(tmp_path / "driver", devices)


class ServiceManager:
    """The other end of $NOTIFY_SOCKET: a datagram socket, abstract when the address begins with "@"."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def receive(self, seconds: float) -> dict[str, str]:
        """The next notification. Raises TimeoutError."""
        self._socket.settimeout(max(seconds, 0.001))
        lines = self._socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_for(self, key: str, seconds: float = 10.0) -> dict[str, str]:
        """The next notification that has this key; others are passed over. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while key not in (found := self.receive(deadline - time.monotonic())):
            pass
        return found

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        with contextlib.suppress(TimeoutError):
            self.receive(seconds)
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def any_service_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    """Both kinds of address that sd_notify(3) knows."""
    address = str(tmp_path / "notify") if request.param == "a path" else f"@{tmp_path}"
    manager = ServiceManager(address[:100])
    yield manager
    manager.close()


@pytest.fixture
def service_manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(str(tmp_path / "notify"))
    yield manager
    manager.close()
