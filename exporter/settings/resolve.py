"""Finds the effective settings in a short-lived child, so that the daemon never loads the validator.

The child prints one JSON object, {"settings": …} or {"error": …}; the environment is inherited.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.settings.errors import ConfigurationError
from exporter.settings.options import Settings, from_plain

DEADLINE_SECONDS = 60.0
_LATE = "the configuration reader did not end in time"


def resolve(file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """The effective settings; blocks for the child's life (about 0.4 s). Raises ConfigurationError."""
    try:
        done = subprocess.run(
            command(),
            input=_request(file, flags),
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(_LATE) from None
    except OSError as error:
        raise ConfigurationError(f"the configuration reader could not run: {error.strerror}") from None
    return parse_answer(done.returncode, done.stdout, done.stderr)


async def resolve_async(file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """As `resolve`, without blocking the event loop."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise ConfigurationError(f"the configuration reader could not run: {error.strerror}") from None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            stdout, stderr = await child.communicate(_request(file, flags))
    except TimeoutError:
        child.kill()
        await child.wait()
        raise ConfigurationError(_LATE) from None
    return parse_answer(child.returncode or 0, stdout, stderr)


def _request(file: Path | None, flags: Mapping[str, Any]) -> bytes:
    return json.dumps({"file": None if file is None else str(file), "flags": flags}, default=str).encode()


def command() -> list[str]:
    """The child's command line."""
    return [sys.executable, "-I", "-m", "exporter.settings.resolve"]


def parse_answer(returncode: int, stdout: bytes, stderr: bytes) -> Settings:
    """What the child printed, as Settings. Raises ConfigurationError."""
    try:
        answer = json.loads(stdout)
        if "error" not in answer:
            settings: Settings = from_plain(Settings, answer["settings"])
            return settings
        problem = str(answer["error"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        last = stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no answer"]
        problem = f"the configuration reader ended with {returncode}: {last[0]}"
    raise ConfigurationError(problem)


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON data."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return result


def _child() -> None:
    from exporter.settings import reader

    request = json.load(sys.stdin)
    try:
        settings = reader.read(None if request["file"] is None else Path(request["file"]), request["flags"])
    except ConfigurationError as error:
        print(json.dumps({"error": str(error)}))
        return
    print(json.dumps({"settings": plain(settings)}))


if __name__ == "__main__":
    _child()
