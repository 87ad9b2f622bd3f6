"""A daemon that gives prepared answers on its control socket."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Answers = dict[str, dict[str, Any]]
Prepare = Callable[[Answers], Path]


@pytest.fixture(autouse=True)
def no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DEEPSEEK_EXPORTER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Prepare]:
    """Gives the socket of a daemon that answers each command with what stands prepared for it."""
    path = tmp_path / "control.sock"
    servers: list[socketserver.BaseServer] = []

    def prepare(answers: Answers) -> Path:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline()
                if line:
                    self.wfile.write(json.dumps(answers[json.loads(line)["command"]]).encode() + b"\n")

        server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return path

    yield prepare
    for server in servers:
        server.shutdown()
        server.server_close()
