"""A child process that has loaded the fake driver through the real pynvml and answers Python expressions.

For the fake driver's own tests; a test of the exporter gives `FakeDriver.env` to the exporter's worker.
"""

from __future__ import annotations

import ast
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeDevice

_CHILD = """
import signal, sys, threading, time
from pynvml import *
gpu = {}
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except NVMLError as error:
        print("NVMLError", error.value, flush=True)
"""


class NvmlCodeError(Exception):
    """The child's call ended with this NVML return code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Child:
    """A process with pynvml's names, the standard modules signal, sys, threading, time, and a dict `gpu`."""

    def __init__(self, driver: FakeDriver) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            env={**os.environ, **driver.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._receive() == "ready"

    def send(self, expression: str) -> None:
        """Begins an expression without waiting for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        """The value of the expression sent last, a literal; NvmlCodeError when pynvml raised."""
        text = self._receive()
        if text.startswith("NVMLError "):
            raise NvmlCodeError(int(text.split()[1]))
        return ast.literal_eval(text)

    def answers_within(self, seconds: float) -> bool:
        """Whether an answer comes in that time; it is not read."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def ask(self, expression: str) -> object:
        """Sends and answers."""
        self.send(expression)
        return self.answer()

    def do(self, expression: str) -> None:
        """Evaluates an expression whose value is no literal, or of no interest."""
        self.ask(f"[{expression}, None][-1]")

    def code(self, expression: str) -> int:
        """The NVML code that the expression fails with, 0 when it does not."""
        try:
            self.do(expression)
        except NvmlCodeError as error:
            return error.code
        return 0

    def start(self, count: int) -> None:
        """Initialises NVML and keeps the handles of the first `count` devices in `gpu`."""
        self.do("nvmlInit()")
        self.do(f"gpu.update((i, nvmlDeviceGetHandleByIndex(i)) for i in range({count}))")

    def end(self) -> None:
        """Kills the process and closes its pipes."""
        self.process.kill()
        self.process.communicate()

    def _receive(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")


class Bench:
    """One test's folder, driver and children."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: list[Child] = []

    def driver(self, devices: Sequence[FakeDevice] = (), without: Sequence[str] = ()) -> FakeDriver:
        """A fake driver in this test's folder."""
        return FakeDriver.create(self.directory, devices, without=without)

    def child(self, driver: FakeDriver, started: int | None = None) -> Child:
        """A child that uses the driver; `started` initialises it and takes that many handles."""
        child = Child(driver)
        self.children.append(child)
        if started is not None:
            child.start(started)
        return child

    def one(self, device: FakeDevice) -> tuple[FakeDriver, Child]:
        """A driver with one device, and a child that has its handle in `gpu[0]`."""
        driver = self.driver([device])
        return driver, self.child(driver, started=1)

    def end(self) -> None:
        """Ends the children."""
        for child in self.children:
            child.end()
