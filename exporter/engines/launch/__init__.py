"""What a server's command line says, read by allow-list: no raw argument ever leaves this folder."""

from exporter.engines.launch.facts import Launch, LaunchError, Link, Offload, Role, Speculative, deployment_of
from exporter.engines.launch.reader import read_command, read_launch

__all__ = [
    "Launch",
    "LaunchError",
    "Link",
    "Offload",
    "Role",
    "Speculative",
    "deployment_of",
    "read_command",
    "read_launch",
]
