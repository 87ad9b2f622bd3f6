"""What is asked of an engine's endpoint and what may come back: bounded numbers and short names only.

An answer is written by whoever runs the engine. Every field is typed and bounded where it is read
(`values.py`); None means that the engine did not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address


class Reason(StrEnum):
    """Why an endpoint, or one question to it, gave nothing."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    NOT_HTTP = "not_http"
    KEY_REQUIRED = "key_required"
    REDIRECT = "redirect"
    BAD_STATUS = "bad_status"
    NONSENSE = "nonsense"
    TLS = "tls"
    """its certificate is not accepted, or it does not speak TLS"""
    LOADING = "loading"
    UNSUPPORTED = "unsupported"
    """No endpoint of this engine is known."""


class State(StrEnum):
    WARM = "warm"
    LOADING = "loading"
    SLEEPING = "sleeping"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint to read.

    ``host`` is a numeric address: loopback, or, with ``own_address``, an address that the engine's own
    network namespace holds. ``key`` is a bearer key and belongs to configured targets only: a discovered
    endpoint may be anybody's. ``generation`` is the (pid, start_ticks) of the server: what is remembered of
    it ends with it. ``version`` is the engine's, where the launch tells. llama.cpp's are ``kv_unified``,
    whether its slots share one cache (None: not known), and ``sleeps_when_idle`` (--sleep-idle-seconds), when
    some questions would keep it awake.

    Raises ValueError for an address or a key that will not be used; the text repeats neither.
    """

    name: str
    engine: str
    host: str
    port: int
    key: str | None = field(default=None, repr=False)
    version: str | None = None
    own_address: bool = False
    generation: tuple[int, int] | None = None
    kv_unified: bool | None = None
    sleeps_when_idle: bool = False

    def __post_init__(self) -> None:
        _check_address(self.host, own=self.own_address)
        if not 0 < self.port < 65536:
            raise ValueError("a port lies between 1 and 65535")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise ValueError("the key cannot be sent: it is not printable ASCII")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that Ollama holds. ``vram_bytes`` is the part of ``size_bytes`` on GPUs; ``digest`` is the
    manifest's, 64 hexadecimal digits.
    """

    name: str
    size_bytes: int | None = None
    vram_bytes: int | None = None
    context_tokens: int | None = None
    quantization: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What one engine said.

    ``kv_capacity_tokens``, ``kv_used_tokens`` and the requests are summed over data-parallel ranks;
    ``kv_capacity_from_blocks`` is True where the capacity is blocks × block size, which is wrong for models
    with several kinds of KV cache. ``kv_used_tokens`` are those of requests in progress, as far as the engine
    tells them from reusable ones. ``weights_bytes`` and ``kv_bytes`` are those of one GPU, the fullest that
    the engine tells of; ``model_bytes`` is the size of all tensors together. ``max_model_len`` is the longest
    sequence. ``tokens`` counts since the engine's start, by kind (prompt, prompt_cached, generated,
    draft_accepted, draft_rejected), each as the engine counts it. ``model`` is a hub id or a path,
    ``served_model`` the name clients use.
    """

    engine_version: str | None = None
    model: str | None = None
    served_model: str | None = None
    quantization: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    kv_capacity_tokens: int | None = None
    kv_capacity_from_blocks: bool = False
    kv_used_tokens: int | None = None
    kv_usage_ratio: float | None = None
    kv_block_size: int | None = None
    kv_cache_dtype: str | None = None
    requests_running: int | None = None
    requests_waiting: int | None = None
    preemptions_total: int | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    model_bytes: int | None = None
    weights_bytes: int | None = None
    kv_bytes: int | None = None
    loaded_models: tuple[LoadedModel, ...] = ()
    sleeping: bool = False


@dataclass(frozen=True, slots=True)
class TelemetryResult:
    """How one target answered.

    ``telemetry`` is None when the engine could not be read, ``reason`` then says why. ``missing`` names the
    paths that gave nothing although the engine answered, with the reason of each. ``at`` is monotonic time
    in seconds.
    """

    telemetry: Telemetry | None
    state: State
    reason: Reason | None
    at: float
    missing: tuple[tuple[str, Reason], ...] = ()


def _check_address(host: str, *, own: bool) -> None:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        raise ValueError("the host is not a numeric address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return
    # Link-local holds the metadata services of clouds.
    if not own or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise ValueError("the address is neither loopback nor the engine's own")
