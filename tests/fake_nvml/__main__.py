"""Writes a fake driver into a folder and prints the environment that makes a program use it.

Hands-on use: `PYTHONPATH=tests python -m fake_nvml 8xh200 DIR`, export what it prints, start the daemon, and
edit DIR/nvml.control while it runs.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from fake_nvml.control import FakeDriver
from fake_nvml.devices import KINDS, FakeDevice, many


def parse_devices(text: str) -> list[FakeDevice]:
    """Devices from a text such as `8xh200` or `h100_mig`; argparse.ArgumentTypeError when it is not one."""
    match = re.fullmatch(r"(?:(\d+)x)?(\w+)", text)
    if match is None or match[2] not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not COUNTxKIND with a kind of {', '.join(KINDS)}")
    return many(match[2], int(match[1] or 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line (`sys.argv` when none is given), writes the driver, prints the export lines."""
    parser = argparse.ArgumentParser(prog="python -m fake_nvml", description=__doc__)
    parser.add_argument("devices", type=parse_devices, help="such as 8xh200; kinds: " + ", ".join(KINDS))
    parser.add_argument("directory", type=Path, help="where the control file goes")
    options = parser.parse_args(arguments)
    driver = FakeDriver.create(options.directory.resolve(), options.devices)
    for name, value in driver.env.items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
