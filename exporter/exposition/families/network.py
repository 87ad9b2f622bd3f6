"""Families of the network: interfaces of the host, and the links between the nodes of a deployment."""

from __future__ import annotations

from exporter.exposition.families.family import DEPLOYMENT, Family, counter, gauge, info

NETWORK_INTERFACES = gauge(
    "host_network_interfaces",
    (),
    "Interfaces that are reported; absent while they, or one that carries a deployment, cannot be told.",
)
NETWORK_BYTES = counter(
    "host_network_bytes",
    ("interface", "direction"),
    "Bytes sent and received. What RDMA carries counts at its port (mlx5_0:1), not at a network interface.",
)
NETWORK_SPEED = gauge(
    "host_network_speed_bytes_per_second",
    ("interface",),
    "Speed of each direction; absent where the driver does not tell, or while it is down.",
)
NETWORK_UP = gauge("host_network_up", ("interface",), "Whether the link is up, where the driver tells.")
NETWORK_USAGE = gauge(
    "host_network_usage_ratio",
    ("interface", "direction"),
    "Share of its speed that an interface carried in the last minute.",
)
EXPECTED_NETWORK = gauge(
    "expected_network_bytes_per_token",
    (*DEPLOYMENT, "kind", "bound"),
    "What one node sends for each token of a deployment on several, prompt or generated: tp, pp, dp (tokens"
    " gathered for experts), ep; kv_transfer: the cache of a prompt token, received by a decode server.",
)
LINK_INFO = info(
    "deployment_link",
    (*DEPLOYMENT, "interface", "basis"),
    "What carries it; basis is configured, launch, rdma (ports that are up), route, fastest or only.",
)
LINK_SPEED = gauge(
    "deployment_link_speed_bytes_per_second",
    DEPLOYMENT,
    "Speed of each direction of all interfaces that carry it.",
)
LINK_USAGE = gauge(
    "deployment_link_usage_ratio",
    (*DEPLOYMENT, "direction"),
    "Usage ratio of the fullest interface that carries it.",
)
LINK_CEILING = gauge(
    "deployment_link_ceiling_tokens_per_second",
    (*DEPLOYMENT, "bound"),
    "Tokens, prompt and generated together, that this node's link allows the whole deployment to compute.",
)
LINK_NEEDED = gauge(
    "deployment_link_needed_tokens_per_second",
    DEPLOYMENT,
    "What a link must allow to be of use: link_tokens_per_second x GPUs of all nodes.",
)
ACTIVE = gauge(
    "deployment_active",
    DEPLOYMENT,
    "Whether it works now: a device of it is in use, or a request runs; absent where neither is known.",
)

FAMILIES: tuple[Family, ...] = (
    NETWORK_INTERFACES,
    NETWORK_BYTES,
    NETWORK_SPEED,
    NETWORK_UP,
    NETWORK_USAGE,
    EXPECTED_NETWORK,
    LINK_INFO,
    LINK_SPEED,
    LINK_USAGE,
    LINK_CEILING,
    LINK_NEEDED,
    ACTIVE,
)
