"""Memory of a serving device that belongs to no deployment: strangers' programs, engines left over."""

from __future__ import annotations

from exporter.capacity.assessment import Assessment


def foreign_bytes(assessment: Assessment) -> dict[str, int]:
    """Device → bytes that others hold of it, where a deployment holds some or should.

    What is nobody's on a device that serves nobody is no concern: that device is absent.
    """
    promised = {
        uuid
        for status in assessment.deployments
        if status.declared.footprint is not None
        for uuid, rank in zip(status.declared.ranks, status.declared.footprint.devices, strict=False)
        if rank.total.expected_bytes > 0
    }
    return {
        uuid: sum(one.size_bytes for one in holdings if one.kind != "deployment")
        for uuid, holdings in assessment.held.items()
        if uuid in promised or any(one.kind == "deployment" and one.size_bytes > 0 for one in holdings)
    }
