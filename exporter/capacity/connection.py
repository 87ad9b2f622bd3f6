"""Adds to a judgement what the links between nodes are and allow, and which deployments work."""

from __future__ import annotations

from dataclasses import replace

from exporter.capacity.assessment import Assessment, DeploymentStatus
from exporter.capacity.links import is_active, link_status
from exporter.capacity.observation import Observation


def connected(
    assessment: Assessment, observation: Observation, *, link_tokens_per_second: float, active_ratio: float
) -> Assessment:
    """``link_tokens_per_second`` is what a link must allow for each GPU, ``active_ratio`` the utilization
    above which a device works.
    """
    statuses = tuple(
        _judged(one, observation, link_tokens_per_second, active_ratio) if one.running else one
        for one in assessment.deployments
    )
    return replace(assessment, deployments=statuses)


def _judged(
    status: DeploymentStatus, observation: Observation, needed: float, active_ratio: float
) -> DeploymentStatus:
    running, carrier = status.running_as, observation.carriers.get(status.declared.name)
    telemetry = running.telemetry if running is not None else None
    requests = telemetry.requests_running if telemetry is not None else None
    status = replace(
        status,
        active=is_active(observation.gpus, set(status.declared.ranks) - {""}, requests, active_ratio),
    )
    if running is None or running.network is None or carrier is None:
        return status
    return replace(status, link=link_status(carrier, observation.network, running.network, needed))
