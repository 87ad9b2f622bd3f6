"""An architecture from a model's config.json, for models that the catalogue does not have.

Field names are those of transformers 5.23 and of the configs that DeepSeek publishes. Values come from files
that anyone may have written: each is checked against what any model could have, and an error names the field
and what is allowed, never the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from exporter.models.architecture import (
    Architecture,
    CompressedAttention,
    DraftStages,
    Engram,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    SparseIndexer,
)


class ConfigurationError(ValueError):
    """The configuration does not describe a model that is known: the message names the field."""


MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 20
MAX_VOCABULARY: Final = 1 << 24
MAX_EXPERTS: Final = 1 << 14
MAX_CONTEXT: Final = 1 << 31
MAX_TABLE_ROWS: Final = 1 << 36
_MAX_HEADS: Final = 1 << 14
_IMAGE_TOKENS: Final = 3
_COLOURS: Final = 3

_FAMILIES_OF_CLASSES = {
    "DeepseekForCausalLM": "deepseek",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
# Language models of these families lie in a nested table.
_NESTED = {
    "deepseek_vl_v2": ("language_config", "deepseek_v2"),
    "deepseek_vl2": ("language_config", "deepseek_v2"),
    "deepseek_ocr": ("language_config", "deepseek_v2"),
    "deepseekocr": ("language_config", "deepseek_v2"),
    "multi_modality": ("language_config", "llama"),
    "deepseek_v41": ("text_config", "deepseek_v41"),
}
_GGUF_NAMES = {
    "deepseek": "deepseek",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek32",
    "deepseek_v4": "deepseek4",
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
# The same tensors under another name.
_SAME_FAMILY = {
    "kimi_k2": "deepseek_v3",
    "deepseek_v3_2": "deepseek_v32",
    "deepseek_v41_text": "deepseek_v41",
}
_LAYERS_OF_70B = 80


def architecture_from_config(config: Mapping[str, object], name: str) -> Architecture:
    """The architecture that a config.json describes, under a name of the caller's.

    ``model_type`` may be llama, qwen2, qwen3, deepseek, deepseek_v2, deepseek_v3, deepseek_v32, deepseek_v4,
    deepseek_v41, or a vision model over one of these. Raises ConfigurationError.
    """
    family, fields = _language_model(config)
    reader = _READERS.get(family)
    if reader is None:
        raise ConfigurationError(f"model_type is not known; known: {', '.join(_READERS)}")
    return reader(fields, name, family)


class _Fields:
    """Checked access to the fields of a configuration."""

    def __init__(self, raw: Mapping[str, object], around: Mapping[str, object] | None = None) -> None:
        self._raw = raw
        self.around = around if around is not None else raw

    def number(self, field: str, most: int, *, least: int = 1, default: int | None = None) -> int:
        value = self._raw.get(field)
        if value is None:
            if default is None:
                raise ConfigurationError(f"{field} is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigurationError(f"{field} must be a whole number from {least} to {most}")
        return value

    def switch(self, field: str, default: bool) -> bool:
        value = self._raw.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigurationError(f"{field} must be true or false")
        return value

    def numbers(self, field: str, most: int, *, least: int = 0, length: int = MAX_LAYERS) -> tuple[int, ...]:
        value = self._raw.get(field)
        if not isinstance(value, list | tuple) or len(value) > length:
            raise ConfigurationError(f"{field} must be a list of at most {length} whole numbers")
        if any(isinstance(n, bool) or not isinstance(n, int) or not least <= n <= most for n in value):
            raise ConfigurationError(f"{field} must hold whole numbers from {least} to {most}")
        return tuple(value)

    def text(self, field: str) -> str | None:
        value = self._raw.get(field)
        return value if isinstance(value, str) else None

    def table(self, field: str) -> _Fields | None:
        value = self.around.get(field)
        return _Fields(value) if isinstance(value, Mapping) else None

    def says(self, field: str) -> bool:
        """Whether the field has a value other than null."""
        return self._raw.get(field) is not None


def _language_model(config: Mapping[str, object]) -> tuple[str, _Fields]:
    family = config.get("model_type")
    if not isinstance(family, str):
        classes = config.get("architectures")
        first = classes[0] if isinstance(classes, list) and classes else None
        family = _FAMILIES_OF_CLASSES.get(first) if isinstance(first, str) else None
        if family is None:
            raise ConfigurationError("model_type is missing")
    family = family.lower()
    if family in _NESTED:
        table, inner = _NESTED[family]
        nested = config.get(table)
        if not isinstance(nested, Mapping):
            raise ConfigurationError(f"{table} is missing")
        told = nested.get("model_type")
        own = told if isinstance(told, str) and told in _READERS else inner
        return _SAME_FAMILY.get(own, own), _Fields(nested, config)
    return _SAME_FAMILY.get(family, family), _Fields(config)


def _plain(f: _Fields, name: str, family: str) -> Architecture:
    """Llama, Qwen2, Qwen3: dense layers with grouped-query attention."""
    layers = f.number("num_hidden_layers", MAX_LAYERS)
    return Architecture(
        name=name,
        family=family,
        layers=layers,
        hidden=f.number("hidden_size", MAX_WIDTH),
        vocabulary=f.number("vocab_size", MAX_VOCABULARY),
        intermediate=f.number("intermediate_size", MAX_WIDTH),
        context_tokens=_context(f),
        attention=_grouped_query(f, family),
        tied_embeddings=f.switch("tie_word_embeddings", False),
        gguf_size_class="70B" if family == "llama" and layers == _LAYERS_OF_70B else "",
        gguf_architecture=_GGUF_NAMES[family],
    )


def _deepseek(f: _Fields, name: str, family: str) -> Architecture:
    """DeepSeek-MoE, V2, V3, V3.2 and the language models of VL2 and OCR."""
    latent = family != "deepseek" and f.switch("use_mla", True)
    attention = _latent(f, family) if latent else _grouped_query(f, family)
    vision = f.around.get("language_config") is not None
    return Architecture(
        name=name,
        family=family,
        layers=f.number("num_hidden_layers", MAX_LAYERS),
        hidden=f.number("hidden_size", MAX_WIDTH),
        vocabulary=f.number("vocab_size", MAX_VOCABULARY),
        intermediate=f.number("intermediate_size", MAX_WIDTH),
        context_tokens=_context(f),
        attention=attention,
        experts=_experts(f, family) if f.says("n_routed_experts") else None,
        draft_layers=f.number("num_nextn_predict_layers", 8, least=0, default=0),
        tied_embeddings=f.switch("tie_word_embeddings", False),
        gguf_architecture="" if vision else _GGUF_NAMES[family],
    )


def _v4(f: _Fields, name: str, family: str) -> Architecture:
    """V4 and V4.1."""
    shared = family == "deepseek_v41"
    hidden = f.number("hidden_size", MAX_WIDTH)
    layers = f.number("num_hidden_layers", MAX_LAYERS)
    draft, stages = _v4_drafts(f, shared)
    return Architecture(
        name=name,
        family=family,
        layers=layers,
        hidden=hidden,
        vocabulary=f.number("vocab_size", MAX_VOCABULARY),
        intermediate=0,
        context_tokens=_context(f),
        attention=_compressed(f, layers, shared),
        experts=_v4_experts(f, shared, "n_routed_experts", "num_experts_per_tok"),
        draft_layers=stages,
        draft=draft,
        hyper_connections=f.number("hc_mult", 64, default=4),
        engram=_engram(f, layers) if shared else None,
        encoder_parameters=_v41_encoder(f, hidden) if shared else 0,
        gguf_architecture=_GGUF_NAMES.get(family, ""),
        gguf_experts="MXFP4" if not shared and f.text("expert_dtype") == "fp4" else "",
    )


def _context(f: _Fields) -> int:
    return f.number("max_position_embeddings", MAX_CONTEXT, default=2048)


def _grouped_query(f: _Fields, family: str) -> GroupedQueryAttention:
    heads = f.number("num_attention_heads", _MAX_HEADS)
    kv_heads = f.number("num_key_value_heads", _MAX_HEADS, default=heads)
    if heads % kv_heads:
        raise ConfigurationError("num_key_value_heads must divide num_attention_heads")
    hidden = f.number("hidden_size", MAX_WIDTH)
    if not f.says("head_dim") and hidden % heads:
        raise ConfigurationError("num_attention_heads must divide hidden_size")
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=f.number("head_dim", MAX_WIDTH, default=hidden // heads),
        qkv_bias=family == "qwen2" or f.switch("attention_bias", False),
        qk_norm=family == "qwen3",
    )


def _latent(f: _Fields, family: str) -> LatentAttention:
    return LatentAttention(
        heads=f.number("num_attention_heads", _MAX_HEADS),
        q_lora_rank=f.number("q_lora_rank", MAX_WIDTH, default=0),
        kv_lora_rank=f.number("kv_lora_rank", MAX_WIDTH),
        nope_head_dim=f.number("qk_nope_head_dim", MAX_WIDTH),
        rope_head_dim=f.number("qk_rope_head_dim", MAX_WIDTH),
        value_head_dim=f.number("v_head_dim", MAX_WIDTH),
        indexer=_indexer(f) if family == "deepseek_v32" else None,
    )


def _compressed(f: _Fields, layers: int, shared: bool) -> CompressedAttention:
    heads, groups = f.number("num_attention_heads", _MAX_HEADS), f.number("o_groups", _MAX_HEADS)
    if heads % groups:
        raise ConfigurationError("o_groups must divide num_attention_heads")
    ratios = f.numbers("compress_ratios", MAX_WIDTH, length=2 * MAX_LAYERS)
    if len(ratios) < layers:
        raise ConfigurationError("compress_ratios must name every layer")
    return CompressedAttention(
        heads=heads,
        head_dim=f.number("head_dim", MAX_WIDTH),
        rope_head_dim=f.number("qk_rope_head_dim", MAX_WIDTH),
        q_lora_rank=f.number("q_lora_rank", MAX_WIDTH),
        o_lora_rank=f.number("o_lora_rank", MAX_WIDTH),
        o_groups=groups,
        window=f.number("sliding_window", MAX_CONTEXT),
        compress_ratios=ratios[:layers],
        indexer=_indexer(f),
        kv_sources=f.numbers("kv_source_layer_ids", layers - 1) if shared else None,
        index_sources=f.numbers("index_source_layer_ids", layers - 1) if shared else None,
    )


def _indexer(f: _Fields) -> SparseIndexer:
    return SparseIndexer(
        heads=f.number("index_n_heads", _MAX_HEADS),
        head_dim=f.number("index_head_dim", MAX_WIDTH),
        top_k=f.number("index_topk", MAX_CONTEXT),
    )


def _experts(f: _Fields, family: str) -> MixtureOfExperts:
    if f.number("moe_layer_freq", MAX_LAYERS, default=1) != 1:
        raise ConfigurationError("moe_layer_freq must be 1: experts in every layer after the dense ones")
    routed = f.number("n_routed_experts", MAX_EXPERTS)
    method = f.text("topk_method")
    groups = f.number("n_group", routed, least=0, default=1) or 1
    return MixtureOfExperts(
        routed=routed,
        active=f.number("num_experts_per_tok", routed),
        shared=f.number("n_shared_experts", MAX_EXPERTS, least=0, default=0),
        intermediate=f.number("moe_intermediate_size", MAX_WIDTH),
        dense_layers=f.number("first_k_dense_replace", MAX_LAYERS, least=0, default=0),
        # transformers' DeepseekV3 has the bias always, V2 by its routing method.
        correction_bias=method == "noaux_tc"
        or (method is None and family in ("deepseek_v3", "deepseek_v32")),
        groups=groups,
        active_groups=f.number("topk_group", groups, least=0, default=groups) or groups,
    )


def _v4_experts(f: _Fields, shared: bool, routed_field: str, active_field: str) -> MixtureOfExperts:
    routed = f.number(routed_field, MAX_EXPERTS)
    return MixtureOfExperts(
        routed=routed,
        active=f.number(active_field, routed),
        shared=f.number("n_shared_experts", MAX_EXPERTS, least=0, default=1),
        intermediate=f.number("moe_intermediate_size", MAX_WIDTH),
        dense_layers=0,
        correction_bias=True,
        hash_layers=f.number("num_hash_layers", MAX_LAYERS, least=0, default=0),
        image_bias=shared,
    )


def _v4_drafts(f: _Fields, shared: bool) -> tuple[DraftStages | None, int]:
    layers = f.number("num_nextn_predict_layers", 16, least=0, default=0)
    if not layers:
        return None, 0
    if not f.says("dspark_markov_rank"):
        # Base checkpoints, with experts in FP8, store embedding and head of the draft layer once more.
        return DraftStages(owns_vocabulary=f.text("expert_dtype") == "fp8"), layers
    targets = len(f.numbers("dspark_target_layer_ids", MAX_LAYERS, length=16))
    own = shared and f.says("dspark_n_routed_experts")
    draft = DraftStages(
        markov_rank=f.number("dspark_markov_rank", MAX_WIDTH),
        targets=targets,
        experts=_v4_experts(f, shared, "dspark_n_routed_experts", "dspark_num_experts_per_tok")
        if own
        else None,
    )
    # V4's configs go on saying one prediction layer where the files hold a stage per target.
    return draft, layers if shared else max(layers, targets)


def _engram(f: _Fields, layers: int) -> Engram | None:
    if not f.says("engram_layer_ids"):
        return None
    ids = f.numbers("engram_layer_ids", layers - 1)
    rows = f.numbers("engram_num_embeddings", MAX_TABLE_ROWS, least=1)
    if len(ids) != len(rows):
        raise ConfigurationError("engram_num_embeddings must name one number for each of engram_layer_ids")
    return Engram(
        layers=ids,
        rows=rows,
        head_dim=f.number("engram_head_dim", MAX_WIDTH),
        heads=f.number("engram_n_heads", _MAX_HEADS),
        max_ngram=f.number("engram_max_ngram_size", 64, least=2),
    )


def _v41_encoder(f: _Fields, hidden: int) -> int:
    """Parameters of V4.1's vision tower, its aligner into the language model and the image tokens (tensors of
    the published checkpoint).
    """
    v = f.table("vision_config")
    if v is None:
        return 0
    width, inner = v.number("hidden_size", MAX_WIDTH), v.number("intermediate_size", MAX_WIDTH)
    patch = v.number("patch_size", 1024)
    block = 4 * width * width + 4 * width + 3 * inner * width + 2 * width
    embedding = width * _COLOURS * patch * patch + width
    joined = width * v.number("downsample_ratio", 64) ** 2
    aligner = hidden * joined + hidden + hidden * hidden + hidden
    tower = embedding + v.number("num_hidden_layers", MAX_LAYERS) * block + width
    return tower + aligner + _IMAGE_TOKENS * hidden


_READERS: Mapping[str, Callable[[_Fields, str, str], Architecture]] = {
    "llama": _plain,
    "qwen2": _plain,
    "qwen3": _plain,
    "deepseek": _deepseek,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "deepseek_v32": _deepseek,
    "deepseek_v4": _v4,
    "deepseek_v41": _v4,
}
