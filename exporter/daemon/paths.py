"""Where the daemon keeps its state and its control socket, under systemd and by hand."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.settings.options import State

_NAME = "deepseek-exporter"
_SERVICE_SOCKET = Path("/run") / _NAME / "control.sock"


def inventory_file(options: State) -> Path:
    """The devices that were ever seen here."""
    return state_directory(options) / "inventory.json"


def alerts_file(options: State) -> Path:
    """The alerts that stood when they last changed."""
    return state_directory(options) / "alerts.json"


def state_directory(options: State) -> Path:
    """Where state is kept: the configured directory, the service's, else the user's state folder (XDG)."""
    service = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if options.directory is not None:
        directory = options.directory
    elif service:
        directory = Path(service)
    else:
        state_home = os.environ.get("XDG_STATE_HOME")
        directory = (Path(state_home) if state_home else Path.home() / ".local" / "state") / _NAME
    return directory


def control_socket(options: State) -> Path:
    """The socket that a daemon started here listens on."""
    if options.control_socket is not None:
        return options.control_socket
    service = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if service:
        return Path(service) / "control.sock"
    if os.geteuid() == 0:
        return _SERVICE_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / _NAME if runtime else state_directory(options)) / "control.sock"
