"""The control socket: one JSON object a line in, one out, for `ctl` and `status`.

A Unix socket that only its owner and root can open; the file system's permissions are the authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from exporter import log

_log = log.get(__name__)

Answer = dict[str, Any]
Handler = Callable[[Answer], Awaitable[Answer]]

_REQUEST_LIMIT_BYTES = 4096
_REQUEST_SECONDS = 5.0


class ControlError(Exception):
    """The daemon cannot be reached or another one is in the way; the text says what to do."""


class ControlServer:
    """Answers requests with `handler` until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ControlError when another daemon does, or the folder cannot be written."""
        if is_alive(self._path):
            raise ControlError(
                f"another deepseek-exporter already runs here (it answers on {self._path}); stop it, or give "
                "this one its own --state.control-socket and --web.listen-address"
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._path.exists() and not self._path.is_socket():
                raise OSError(errno.EEXIST, "something that is no socket is in its place")
            self._path.unlink(missing_ok=True)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            bound.bind(str(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=bound, limit=_REQUEST_LIMIT_BYTES
            )
        except OSError as error:
            raise ControlError(
                f"control socket {self._path}: {error.strerror or error}; choose another with "
                "--state.control-socket"
            ) from None

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(_REQUEST_SECONDS):
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # a client that says nothing, too much, or goes away costs only itself
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not JSON"}
        if not isinstance(request, dict):
            return {"error": "not an object"}
        return await self._handler(request)


def is_alive(path: Path) -> bool:
    """Whether something listens on the socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(str(path))
        return True
    return False


def ask(path: Path, request: Answer, *, seconds: float = 30.0) -> Answer:
    """Send one request to the daemon and wait for its answer. Raises ControlError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(seconds)
            client.connect(str(path))
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as stream:
                answer = json.loads(stream.readline())
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(
            f"no daemon answers on {path}; is it running? (`systemctl status deepseek-exporter`)"
        ) from None
    except PermissionError:
        raise ControlError(f"{path}: permission denied; run as root or as the daemon's user") from None
    except (OSError, ValueError) as error:
        raise ControlError(f"{path}: the daemon gave no answer: {error}") from None
    if not isinstance(answer, dict):
        raise ControlError(f"{path}: the daemon's answer makes no sense")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer
