"""The architecture that a GGUF describes: its metadata's numbers, and which tensors it has.

Keys: llama.cpp src/llama-arch.cpp (b11434), as its converters fill them (conversion/deepseek.py, llama.py,
qwen.py). Latent attention: files since April 2025 have ``key_length_mla`` and split ``attn_kv_b``; before,
``key_length`` was that of a whole head.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.models.architecture import (
    Architecture,
    Attention,
    CompressedAttention,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    SparseIndexer,
)
from exporter.models.checkpoint.tensors import Header, MetadataValue
from exporter.models.checkpoint.weights import CheckpointWeights, checkpoint_weights
from exporter.models.gguf import GgufLayout
from exporter.models.roles import Role

LATENT = frozenset({"deepseek2", "deepseek32"})
COMPRESSED = frozenset({"deepseek4"})
GROUPED_QUERY = frozenset({"deepseek", "deepseek2-ocr", "llama", "qwen2", "qwen3"})
KNOWN = LATENT | COMPRESSED | GROUPED_QUERY
"""Values of ``general.architecture`` that are understood: those of DeepSeek's models and distillations."""


class Incomplete(ValueError):
    """The metadata lacks a number, or has one that cannot be; the message names the key, not the value."""


def gguf_architecture(header: Header) -> Architecture | None:
    """The architecture of a GGUF; None for one that is not of a known kind. Raises Incomplete."""
    kind = header.metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in KNOWN:
        return None
    numbers = _Numbers(header.metadata, kind)
    weights = checkpoint_weights(header)
    layers = numbers.get("block_count") - numbers.get("nextn_predict_layers", 0)
    if layers < 1 or weights.layers != layers:
        raise Incomplete("block_count is not the number of layers in the file")
    experts = _experts(numbers, weights)
    return Architecture(
        name=f"{kind} of {layers} layers",
        family=kind,
        layers=layers,
        hidden=numbers.get("embedding_length"),
        vocabulary=_vocabulary(header),
        intermediate=numbers.get("feed_forward_length", 0),
        context_tokens=numbers.get("context_length"),
        attention=_attention(kind, numbers, weights, layers),
        experts=experts,
        draft_layers=numbers.get("nextn_predict_layers", 0),
        tied_embeddings=weights.bytes_of(Role.OUTPUT, None) is None,
        hyper_connections=numbers.get("hyper_connection.count", 0),
        gguf_architecture=kind,
    )


def gguf_layout(header: Header) -> GgufLayout | None:
    """How a GGUF keeps the second half of latent keys and values; None without latent attention."""
    weights = checkpoint_weights(header)
    split = weights.bytes_of(Role.K_B, 0) is not None
    joint = weights.bytes_of(Role.KV_B, 0) is not None
    if split and joint:
        return GgufLayout.BOTH
    if split:
        return GgufLayout.SPLIT
    return GgufLayout.JOINT if joint else None


class _Numbers:
    """Whole numbers of the metadata by the key after the architecture's name."""

    def __init__(self, metadata: Mapping[str, MetadataValue], kind: str) -> None:
        self._metadata = metadata
        self._kind = kind

    def get(self, key: str, default: int | None = None) -> int:
        """A number, or the largest of a number per layer. Raises Incomplete without default."""
        value = self._metadata.get(f"{self._kind}.{key}", default)
        if isinstance(value, tuple):
            value = max(value, default=None)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
            raise Incomplete(f"{key} is missing or not a whole number in bounds")
        return value

    def per_layer(self, key: str, layers: int) -> tuple[int, ...]:
        """One number for every layer. Raises Incomplete."""
        value = self._metadata.get(f"{self._kind}.{key}")
        if not isinstance(value, tuple) or len(value) < layers:
            raise Incomplete(f"{key} is missing or shorter than the number of layers")
        return value[:layers]


def _vocabulary(header: Header) -> int:
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) == 2:
            return tensor.shape[0]
    raise Incomplete("token_embd is missing")


def _attention(kind: str, numbers: _Numbers, weights: CheckpointWeights, layers: int) -> Attention:
    if kind in LATENT:
        return _latent(kind, numbers)
    if kind in COMPRESSED:
        return _compressed(numbers, layers)
    heads = numbers.get("attention.head_count")
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=numbers.get("attention.head_count_kv", heads),
        head_dim=numbers.get("attention.key_length", numbers.get("embedding_length") // max(heads, 1)),
        qkv_bias=weights.bytes_of(Role.Q_BIAS, 0) is not None,
        qk_norm=weights.bytes_of(Role.Q_NORM, 0) is not None,
    )


def _latent(kind: str, numbers: _Numbers) -> LatentAttention:
    rope = numbers.get("rope.dimension_count")
    key = numbers.get("attention.key_length_mla", numbers.get("attention.key_length"))
    return LatentAttention(
        heads=numbers.get("attention.head_count"),
        q_lora_rank=numbers.get("attention.q_lora_rank", 0),
        kv_lora_rank=numbers.get("attention.kv_lora_rank"),
        nope_head_dim=key - rope,
        rope_head_dim=rope,
        value_head_dim=numbers.get("attention.value_length_mla", numbers.get("attention.value_length")),
        indexer=_indexer(numbers) if kind == "deepseek32" else None,
    )


def _compressed(numbers: _Numbers, layers: int) -> CompressedAttention:
    return CompressedAttention(
        heads=numbers.get("attention.head_count"),
        head_dim=numbers.get("attention.key_length"),
        rope_head_dim=numbers.get("rope.dimension_count"),
        q_lora_rank=numbers.get("attention.q_lora_rank"),
        o_lora_rank=numbers.get("attention.output_lora_rank"),
        o_groups=numbers.get("attention.output_group_count"),
        window=numbers.get("attention.sliding_window"),
        compress_ratios=numbers.per_layer("attention.compress_ratios", layers),
        indexer=_indexer(numbers),
    )


def _indexer(numbers: _Numbers) -> SparseIndexer:
    return SparseIndexer(
        heads=numbers.get("attention.indexer.head_count"),
        head_dim=numbers.get("attention.indexer.key_length"),
        top_k=numbers.get("attention.indexer.top_k"),
    )


def _experts(numbers: _Numbers, weights: CheckpointWeights) -> MixtureOfExperts | None:
    routed = numbers.get("expert_count", 0)
    if not routed:
        return None
    last = weights.layers - 1
    return MixtureOfExperts(
        routed=routed,
        active=numbers.get("expert_used_count"),
        shared=numbers.get("expert_shared_count", 0),
        intermediate=numbers.get("expert_feed_forward_length"),
        dense_layers=numbers.get("leading_dense_block_count", 0),
        correction_bias=weights.bytes_of(Role.ROUTER_BIAS, last) is not None,
        hash_layers=numbers.get("hash_layer_count", 0),
        image_bias=weights.bytes_of(Role.ROUTER_IMAGE_BIAS, last) is not None,
    )
