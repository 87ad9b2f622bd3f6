"""How fast one sequence can be answered at the most where weights are computed in RAM: each token reads what
of them it needs, and memory gives no more than its bandwidth.

A bound, not a forecast: it counts weights alone (no KV cache, no activations), takes the memory's rated
speed, and the part that lies on GPUs to cost no time. Answers of several sequences share what they read, so
that their sum may be above it. What programs reach of it: docs/METHOD.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.capacity.confined import binding
from exporter.capacity.observation import Observation
from exporter.hardware.bandwidth import Basis


@dataclass(frozen=True, slots=True)
class DecodeBound:
    """``basis``: where the bandwidth comes from, that of the nodes to which the deployment is bound."""

    tokens_per_second: float
    read_bytes_per_token: int
    bandwidth_bytes_per_second: int
    basis: Basis


def decode_bounds(observation: Observation) -> dict[str, DecodeBound]:
    """Deployment → its bound; absent where no weights are computed in RAM, or the bandwidth is not known."""
    host = observation.host
    if host is None or host.bandwidth is None:
        return {}
    nodes = sum(1 for node in host.numa.values() if node.total_bytes)
    found = {}
    for deployment in observation.declared:
        read = deployment.footprint.host.token_read_bytes if deployment.footprint is not None else None
        if not read:
            continue
        bound = binding(deployment.name, observation)
        bandwidth = host.bandwidth.bytes_per_second
        if bound is not None and nodes:
            bandwidth = bandwidth * len(bound) // nodes
        found[deployment.name] = DecodeBound(bandwidth / read, read, bandwidth, host.bandwidth.basis)
    return found
