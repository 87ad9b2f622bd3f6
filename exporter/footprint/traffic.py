"""What a placement over several nodes sends over the link of one node for each token.

A collective of one token carries its hidden state, S = 2 bytes an element. Of an all-reduce over n ranks on m
nodes a node sends between 2(m-1)/m·S (reduced inside the node first: no algorithm sends less; NCCL's tree
over two nodes) and 2(n-1)/n·S (one ring through all ranks, node by node; more than two nodes: 2·S, an inner
node of NCCL's double tree). Sources: nccl-tests doc/PERFORMANCE.md, and NCCL 2.4 on double binary trees;
vLLM 0.33 models/deepseek_v2.py, distributed/device_communicators/all2all.py; SGLang 0.5.23
layers/dp_attention.py, disaggregation/common/conn.py; DeepEP's README.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, comb

from exporter.footprint.cache_rows import cache_format
from exporter.footprint.deployment import DeploymentSpec, FootprintError
from exporter.footprint.policies.job import Job
from exporter.footprint.policies.speculation import draft_layers
from exporter.footprint.pool_layout import compressed_token_bytes, token_row_bytes
from exporter.footprint.result import NetworkFootprint, Traffic
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, MixtureOfExperts

_ELEMENT_BYTES = 2
"""Hidden states travel in the model's 16-bit type, whatever its weights are in."""
_DISPATCH_FP8 = 1 + 4 / 128
"""FP8 with an f32 scale for each 128 elements (DeepEP README, "dispatch with FP8")."""

_SGLANG = frozenset({"sglang", "ktransformers"})
_ENGINES = _SGLANG | {"vllm", "lmdeploy", "tensorrt-llm"}
"""Engines that lay one deployment over several nodes by the settings that are read here."""
GATHERING = frozenset({"none", "naive", "allgather_reducescatter"})
"""Backends that gather every token on every rank (vLLM `--all2all-backend`, SGLang `--moe-a2a-backend`); all
others send a token to its experts alone."""
_MOST_RANKS = 4096
_NO_DRAFTS = frozenset({"none", "off"})


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of one token; ends as floats until the end, because shares of a token are summed up."""

    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: _Span) -> _Span:
        return _Span(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> _Span:
        return _Span(self.low * factor, self.high * factor)

    def stretched(self, low: float, high: float) -> _Span:
        return _Span(self.low * low, self.high * high)


@dataclass(frozen=True, slots=True)
class _Places:
    """The ranks of a deployment on its nodes, in order, as all engines lay them: tensor ranks next to each
    other, then stages, then replicas.

    ``replicas`` are whole copies, each with its own share of the tokens; ``attention_tp`` is smaller than
    ``tp`` with data-parallel attention.
    """

    nodes: int
    per_node: int
    tp: int
    pp: int
    replicas: int
    attention_tp: int

    @property
    def gpus(self) -> int:
        return self.nodes * self.per_node

    def spread(self, ranks: int) -> int:
        """Nodes over which neighbouring ranks lie: of the group that lies on most."""
        groups = range(0, self.gpus, ranks)
        return max((first + ranks - 1) // self.per_node - first // self.per_node + 1 for first in groups)

    def share(self, ranks: int) -> float:
        """Part of the tokens that one node sees, where each group of ``ranks`` has its own."""
        return max(1, self.per_node // ranks) * ranks / self.gpus


def network_of(job: Job) -> NetworkFootprint | None:
    """What one node sends; None where the deployment has one node and hands no cache over, or where it is not
    known how its ranks lie.
    """
    spec, arch = job.spec, job.architecture
    if spec.engine not in _ENGINES:
        return None
    places = _places(spec, is_moe=arch.experts is not None)
    if places is None:
        return None
    kinds: dict[str, _Span] = {}
    if places.nodes > 1:
        kinds = {"tp": _tensor(job, places), "pp": _pipeline(arch, places), **_experts(job, places)}
        kinds = {kind: _speculated(job, kind, span) for kind, span in kinds.items()}
    if spec.disaggregation in ("prefill", "decode"):
        kinds["kv_transfer"] = _transferred(job, places)
    kinds = {kind: span for kind, span in kinds.items() if span.high}
    if not kinds:
        return None
    paid = [span for kind, span in kinds.items() if kind != "kv_transfer" or spec.disaggregation == "prefill"]
    return NetworkFootprint(
        places.nodes,
        places.gpus,
        {kind: _traffic(span) for kind, span in kinds.items()},
        _traffic(sum(paid, _Span())) if paid else None,
    )


def _places(spec: DeploymentSpec, *, is_moe: bool) -> _Places | None:
    """Where the ranks lie; None where they do not divide over the nodes."""
    inside = spec.dp_attention and spec.engine in _SGLANG
    ranks = spec.tp * spec.pp * (1 if inside else spec.dp)
    if ranks > _MOST_RANKS or ranks % spec.nodes or (inside and spec.tp % spec.dp):
        return None
    return _Places(
        spec.nodes,
        ranks // spec.nodes,
        spec.tp,
        spec.pp,
        1 if inside else spec.dp,
        spec.tp // spec.dp if inside else spec.tp,
    )


def _state_bytes(arch: Architecture) -> int:
    return _ELEMENT_BYTES * arch.hidden


def _all_reduce(nodes: int, ranks: int) -> _Span:
    """In parts of S, see the head of this file."""
    if nodes < 2:
        return _Span()
    return _Span(2 * (nodes - 1) / nodes, 2 * (ranks - 1) / ranks if nodes == 2 else 2.0)


def _tensor(job: Job, places: _Places) -> _Span:
    """All-reduces of tensor ranks: one behind each attention and one behind each feed-forward part (but where
    experts get their tokens otherwise), one behind the embedding; and the logits, gathered from all ranks.
    """
    arch = job.architecture
    state = _state_bytes(arch)
    attention = _all_reduce(places.spread(places.attention_tp), places.attention_tp)
    whole = _all_reduce(places.spread(places.tp), places.tp)
    layers, dense = arch.layers, _dense_layers(arch)
    if places.attention_tp < places.tp:
        # Data-parallel attention: what the feed-forward parts need is gathered, see `_experts`.
        span = attention * (layers * state)
        return span * places.share(places.attention_tp)
    reduced = dense if _moves_tokens(job, places) else layers
    span = whole * ((1 + layers + reduced) * state)
    logits = whole.high / 2 * arch.vocabulary * _ELEMENT_BYTES
    return (span + _Span(0.0, logits)) * places.share(places.tp * places.pp)


def _pipeline(arch: Architecture, places: _Places) -> _Span:
    """What a stage hands to the next one on another node: the hidden state and, where engines keep it apart,
    the residual (IntermediateTensors of both engines). Tensor ranks send a slice each.
    """
    replica = places.tp * places.pp
    if places.pp == 1 or places.spread(replica) < 2:
        return _Span()
    streams = max(1, arch.hyper_connections)
    crossing = min(1.0, places.per_node / places.tp)
    state = _state_bytes(arch) * crossing * places.share(replica)
    return _Span(streams * state, (streams + 1) * state)


def _dense_layers(arch: Architecture) -> int:
    return arch.layers if arch.experts is None else min(arch.layers, arch.experts.dense_layers)


def _moves_tokens(job: Job, places: _Places) -> bool:
    """Whether experts get their tokens by a transfer of its own, not by an all-reduce of tensor ranks."""
    if job.architecture.experts is None:
        return False
    return _is_all_to_all(job.spec) or places.replicas > 1 or places.attention_tp < places.tp


def _is_all_to_all(spec: DeploymentSpec) -> bool:
    return spec.all_to_all is not None and spec.all_to_all.lower() not in GATHERING


def _experts(job: Job, places: _Places) -> dict[str, _Span]:
    """How tokens get to the experts and back, by kind."""
    arch, experts = job.architecture, job.architecture.experts
    all_to_all = _is_all_to_all(job.spec) and experts is not None
    found = {"ep": _dispatched(job, experts, places)} if all_to_all and experts is not None else {}
    if places.attention_tp < places.tp:
        # Dense layers need their tokens too, unless each rank computes them whole.
        dense = 0 if job.spec.moe_dense_tp == 1 else _dense_layers(arch)
        return {**found, "dp": _gathered(job, dense if all_to_all else arch.layers, places)}
    if experts is not None and not all_to_all and places.replicas > 1:
        return {"dp": _gathered(job, arch.layers - _dense_layers(arch), places)}
    return found


def _gathered(job: Job, layers: int, places: _Places) -> _Span:
    """Every token on every rank before the experts, and their sums back: at least an all-gather and a
    reduce-scatter, which together send what one all-reduce does.

    SGLang gathers prompts by an all-reduce and needs another one behind (DpPaddingMode.SUM_LEN). Of vLLM's
    replicas each tensor rank may gather for itself.
    """
    state = _state_bytes(job.architecture)
    nodes, ranks = places.nodes, places.gpus // places.pp
    if places.spread(ranks) < 2:
        return _Span()
    one = _all_reduce(min(nodes, places.spread(ranks)), ranks)
    times = 2 if places.attention_tp < places.tp else 1.5 * places.tp
    return one.stretched(1, times) * (layers * state)


def _dispatched(job: Job, experts: MixtureOfExperts, places: _Places) -> _Span:
    """Tokens to the nodes of their experts, and weighted sums back in 16 bits.

    Low: one copy for each node (DeepEP's normal kernels), in FP8; high: one for each expert (its low-latency
    kernels). All nodes hold the same share of tokens and experts, so that what a node sends is a part of the
    whole.
    """
    arch = job.architecture
    if places.pp > 1 and places.spread(places.tp) < 2:
        return _Span()
    nodes = places.nodes if places.pp == 1 else places.spread(places.tp)
    layers = arch.layers - _dense_layers(arch)
    low, high = _DISPATCH_FP8, float(_ELEMENT_BYTES)
    quantization = job.quantization.lower()
    if quantization.startswith("fp8"):
        high = _DISPATCH_FP8
    elif quantization in ("bf16", "bfloat16", "fp16", "f16"):
        low = float(_ELEMENT_BYTES)
    copies = _Span(remote_nodes(experts, nodes), experts.active * (nodes - 1) / nodes)
    sent = copies.stretched(low + _ELEMENT_BYTES, high + _ELEMENT_BYTES) * (layers * arch.hidden)
    return sent * (1 / nodes)


def remote_nodes(experts: MixtureOfExperts, nodes: int) -> float:
    """On how many other nodes a token has an expert, if it chooses groups and experts evenly.

    Experts lie on the nodes in order, so that a node has whole groups, or a part of one. A token chooses
    ``active_groups`` of ``groups`` and ``active`` experts inside them.
    """
    if nodes < 2:
        return 0.0
    size = experts.routed // experts.groups
    reachable = size * experts.active_groups
    if reachable < experts.active:  # numbers that cannot be: as if there were no groups
        return remote_nodes(replace(experts, groups=1, active_groups=1), nodes)
    here = max(1, experts.routed // nodes)
    # Groups of a node that are chosen, and how many experts of theirs are its own.
    owned, each = max(1, experts.groups // nodes), min(here, size)
    missed = 0.0
    for chosen in range(min(owned, experts.active_groups) + 1):
        rest = experts.active_groups - chosen
        if rest > experts.groups - owned:
            continue
        likely = comb(owned, chosen) * comb(experts.groups - owned, rest)
        elsewhere = reachable - chosen * each
        nothing = comb(elsewhere, experts.active) / comb(reachable, experts.active)
        missed += likely / comb(experts.groups, experts.active_groups) * nothing
    return (nodes - 1) * (1 - missed)


def _speculated(job: Job, kind: str, span: _Span) -> _Span:
    """Drafted tokens are verified in one step, and each costs what any token does: per token that is kept
    between 1 (all are) and as many as the step holds (none is). Draft layers cost their own.
    """
    spec = job.spec
    if spec.speculative is None or spec.speculative.lower() in _NO_DRAFTS:
        return span
    drafted = spec.speculative_tokens or 1
    try:
        share = min(1, draft_layers(job)) / job.architecture.layers if kind != "pp" else 0.0
    except FootprintError:
        share = 0.0
    return span.stretched(1 + share * drafted / (drafted + 1), 1 + drafted + share * drafted)


def _transferred(job: Job, places: _Places) -> _Span:
    """The cache of one prompt token over all layers. Once, or once for each tensor rank of the decode server:
    latent rows are the same on all, and each rank fetches its own (SGLang common/conn.py).
    """
    spec, arch = job.spec, job.architecture
    name, parts = cache_format(spec.kv_cache_dtype), places.attention_tp
    if isinstance(arch.attention, CompressedAttention):
        once = compressed_token_bytes(arch.attention, range(arch.layers), name, spec.fp4_indexer)
        return _Span(float(once), float(once) * parts) * (1 / places.nodes)
    once_bytes = arch.layers * token_row_bytes(arch, name, 1, spec.fp4_indexer)
    each = arch.layers * token_row_bytes(arch, name, parts, spec.fp4_indexer)
    return _Span(once_bytes, max(once_bytes, each * parts)) * (1 / places.nodes)


def _traffic(span: _Span) -> Traffic:
    return Traffic(round(span.low), ceil(span.high))
