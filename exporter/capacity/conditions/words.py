"""What the conditions share: how their prose is written down, and facts that several of them tell."""

from __future__ import annotations

from exporter.capacity.terms import Fact, Form, Labels, Series, Subject, Witness

MINUTE = 60
HOUR = 3600

RUNNING = ("loading", "warm", "sleeping", "unreachable", "orphaned", "unknown")
"""States of a deployment whose processes exist: all but `declared_only`."""

BOUND_LOW: Labels = (("bound", "low"),)
BOUND_HIGH: Labels = (("bound", "high"),)

STATE = "deepseek_deployment_state"

IN_RAM = Fact("deployments", Series("deepseek_expected_host_memory_bytes"), Form.LABEL, "deployment")
ON_DEVICE = Fact("deployments", Series("deepseek_expected_gpu_memory_bytes"), Form.LABEL, "deployment")

DEVICE_SPEAKS = Witness(Series("deepseek_gpu_memory_total_bytes"), Subject.DEVICE)
PROCESSES_SPEAK = Witness(Series("deepseek_deployments_running"), Subject.HOST)
"""Absent while the process table cannot be read: then nothing is known of any deployment."""


def prose(text: str) -> str:
    """A text over several lines of code, on one line."""
    return " ".join(text.split())
