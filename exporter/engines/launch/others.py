"""Programs beside the engines that are seen on inference hosts: what they are for, nothing of their lines."""

from __future__ import annotations

import re

from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.program import Program, programs

_ROLES = (Role.INFRASTRUCTURE, Role.ROUTER, Role.CLIENT, Role.TOOL, Role.SERVER, Role.WORKER)
_TITLES = (
    (re.compile(r"ray::(?:RayWorker|RolloutWorker|Worker|EngineCore)\w{0,64}.{0,80}", re.ASCII), Role.WORKER),
    (re.compile(r"ray::.{0,120}", re.ASCII), Role.INFRASTRUCTURE),
    (re.compile(r"(?:nginx|envoy|haproxy): .{0,120}", re.ASCII), Role.ROUTER),
)


def role_of(program: Program) -> Role | None:
    """What a program beside the engines is for; None when it is not known."""
    for name in program.names:
        if name == "ray" and program.arguments[:1] in (("start",), ("up",)):
            return Role.INFRASTRUCTURE
        for role in _ROLES:
            if name in programs(role):
                return role
        for title, role in _TITLES:
            if title.fullmatch(name):
                return role
    return None


def read(program: Program, role: Role) -> Launch:
    """The role; which engine works behind it, the line does not tell."""
    return Launch(role)
