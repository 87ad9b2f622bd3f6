"""A checkpoint's bytes per role and layer: what replaces a recipe when the headers are known.

Names: Hugging Face checkpoints of Llama, Qwen and DeepSeek V1 to V3.2, DeepSeek's own of V4 and V4.1 (vLLM
0.33 models/deepseek_v4/, deepseek_v41/ and llama.cpp conversion/deepseek.py list them), and GGUF (gguf-py
b11434 constants.py), whose names are the values of ``Role``. Scales belong to the tensor they scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from weakref import WeakKeyDictionary

from exporter.models.checkpoint.tensors import Header
from exporter.models.roles import Role


@dataclass(slots=True)
class _Sum:
    bytes: int = 0
    tensors: int = 0
    types: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoleWeights:
    """What a checkpoint stores for one role in one layer (None: outside of layers), all experts and scales
    included. ``type`` is the element type of most of its bytes, ``tensors`` the number of entries.
    """

    role: Role
    layer: int | None
    bytes: int
    type: str
    tensors: int


@dataclass(frozen=True, slots=True)
class CheckpointWeights:
    """Tensor bytes of a checkpoint by role and layer. Draft layers have numbers from ``layers`` on.

    ``unknown_bytes`` are of tensors whose names no role has; they are in no sum of roles.
    """

    roles: tuple[RoleWeights, ...]
    layers: int
    unknown_tensors: int = 0
    unknown_bytes: int = 0
    notes: tuple[str, ...] = ()
    _bytes: Mapping[tuple[Role, int | None], int] = field(default_factory=lambda: MappingProxyType({}))

    def bytes_of(self, role: Role, layer: int | None) -> int | None:
        """Bytes of a role in a layer; None when the checkpoint has no such tensor."""
        return self._bytes.get((role, layer))

    def layer_bytes(self, layer: int | None) -> Mapping[Role, int]:
        """Bytes of every role of one layer, or of what belongs to none."""
        return {one.role: one.bytes for one in self.roles if one.layer == layer}

    @property
    def main_bytes(self) -> int:
        """Bytes of the model that answers, draft layers and unknown tensors left out."""
        return sum(one.bytes for one in self.roles if not self.is_draft(one.layer))

    @property
    def draft_bytes(self) -> int:
        """Bytes of all draft layers."""
        return sum(one.bytes for one in self.roles if self.is_draft(one.layer))

    def is_draft(self, layer: int | None) -> bool:
        return layer is not None and layer >= self.layers


_GATED = {
    "gate_proj": (Role.FFN_GATE,),
    "up_proj": (Role.FFN_UP,),
    "down_proj": (Role.FFN_DOWN,),
}
_EXPERTS = {
    "gate_proj": (Role.EXPERTS_GATE,),
    "up_proj": (Role.EXPERTS_UP,),
    "down_proj": (Role.EXPERTS_DOWN,),
    "gate_up_proj": (Role.EXPERTS_GATE, Role.EXPERTS_UP),
    "w1": (Role.EXPERTS_GATE,),
    "w2": (Role.EXPERTS_DOWN,),
    "w3": (Role.EXPERTS_UP,),
}
_SHARED = {
    "gate_proj": (Role.SHARED_GATE,),
    "up_proj": (Role.SHARED_UP,),
    "down_proj": (Role.SHARED_DOWN,),
    "gate_up_proj": (Role.SHARED_GATE, Role.SHARED_UP),
    "w1": (Role.SHARED_GATE,),
    "w2": (Role.SHARED_DOWN,),
    "w3": (Role.SHARED_UP,),
}
_COMPRESSOR = {
    "ape": Role.COMPRESSOR_POSITION,
    "wkv": Role.COMPRESSOR_KV,
    "wgate": Role.COMPRESSOR_GATE,
    "norm": Role.COMPRESSOR_NORM,
}
_INDEXER = {
    "wq_b": Role.INDEXER_Q,
    "wk": Role.INDEXER_K,
    "k_norm": Role.INDEXER_K_NORM,
    "weights_proj": Role.INDEXER_PROJECTION,
    "compressor.ape": Role.INDEXER_COMPRESSOR_POSITION,
    "compressor.wkv": Role.INDEXER_COMPRESSOR_KV,
    "compressor.wgate": Role.INDEXER_COMPRESSOR_GATE,
    "compressor.norm": Role.INDEXER_COMPRESSOR_NORM,
}
_HYPER_HEAD = {
    "hc_head_fn": (Role.HYPER_HEAD,),
    "hc_head_base": (Role.HYPER_HEAD_BASE,),
    "hc_head_scale": (Role.HYPER_HEAD_SCALE,),
}

_OUTER: Mapping[str, tuple[Role, ...]] = {
    "embed_tokens": (Role.EMBEDDING,),
    "embed": (Role.EMBEDDING,),
    "norm": (Role.OUTPUT_NORM,),
    "lm_head": (Role.OUTPUT,),
    "head": (Role.OUTPUT,),
    **_HYPER_HEAD,
}
_IN_LAYER: Mapping[str, tuple[Role, ...]] = {
    "input_layernorm": (Role.ATTENTION_NORM,),
    "post_attention_layernorm": (Role.FFN_NORM,),
    "attn_norm": (Role.ATTENTION_NORM,),
    "ffn_norm": (Role.FFN_NORM,),
    "self_attn.q_proj": (Role.Q,),
    "self_attn.k_proj": (Role.K,),
    "self_attn.v_proj": (Role.V,),
    "self_attn.o_proj": (Role.ATTENTION_OUTPUT,),
    "self_attn.q_norm": (Role.Q_NORM,),
    "self_attn.k_norm": (Role.K_NORM,),
    "self_attn.q_a_proj": (Role.Q_A,),
    "self_attn.q_a_layernorm": (Role.Q_A_NORM,),
    "self_attn.q_b_proj": (Role.Q_B,),
    "self_attn.kv_a_proj_with_mqa": (Role.KV_A,),
    "self_attn.kv_a_layernorm": (Role.KV_A_NORM,),
    "self_attn.kv_b_proj": (Role.KV_B,),
    **{f"self_attn.indexer.{name}": (role,) for name, role in _INDEXER.items()},
    **{f"mlp.{name}": roles for name, roles in _GATED.items()},
    "mlp.gate_up_proj": (Role.FFN_GATE, Role.FFN_UP),
    "mlp.gate": (Role.ROUTER,),
    "mlp.gate.e_score_correction_bias": (Role.ROUTER_BIAS,),
    **{f"mlp.experts.{name}": roles for name, roles in _EXPERTS.items()},
    **{f"mlp.shared_experts.{name}": roles for name, roles in _SHARED.items()},
    "attn.wq_a": (Role.Q_A,),
    "attn.q_norm": (Role.Q_A_NORM,),
    "attn.wq_b": (Role.Q_B,),
    "attn.wkv": (Role.KV,),
    "attn.kv_norm": (Role.KV_NORM,),
    "attn.wo_a": (Role.OUTPUT_A,),
    "attn.wo_b": (Role.OUTPUT_B,),
    "attn.attn_sink": (Role.SINKS,),
    **{f"attn.compressor.{name}": (role,) for name, role in _COMPRESSOR.items()},
    **{f"attn.indexer.{name}": (role,) for name, role in _INDEXER.items()},
    "hc_attn_fn": (Role.HYPER_ATTENTION,),
    "hc_attn_base": (Role.HYPER_ATTENTION_BASE,),
    "hc_attn_scale": (Role.HYPER_ATTENTION_SCALE,),
    "hc_ffn_fn": (Role.HYPER_FFN,),
    "hc_ffn_base": (Role.HYPER_FFN_BASE,),
    "hc_ffn_scale": (Role.HYPER_FFN_SCALE,),
    "ffn.gate": (Role.ROUTER,),
    "ffn.gate.e_score_correction_bias": (Role.ROUTER_BIAS,),
    "ffn.gate.bias_vl": (Role.ROUTER_IMAGE_BIAS,),
    "ffn.gate.tid2eid": (Role.ROUTER_HASH,),
    **{f"ffn.experts.{name}": roles for name, roles in _EXPERTS.items()},
    **{f"ffn.shared_experts.{name}": roles for name, roles in _SHARED.items()},
    "engram.embed": (Role.ENGRAM_TABLE,),
    "engram.wkv": (Role.ENGRAM_PROJECTION,),
    "engram.q_weight": (Role.ENGRAM_Q,),
    "engram.k_weight": (Role.ENGRAM_K,),
    "enorm": (Role.DRAFT_EMBEDDING_NORM,),
    "hnorm": (Role.DRAFT_HIDDEN_NORM,),
    "eh_proj": (Role.DRAFT_PROJECTION,),
    "e_proj": (Role.DRAFT_EMBEDDING_PROJECTION,),
    "h_proj": (Role.DRAFT_HIDDEN_PROJECTION,),
    "embed_tokens": (Role.DRAFT_EMBEDDING,),
    "emb.tok_emb": (Role.DRAFT_EMBEDDING,),
    "shared_head.norm": (Role.DRAFT_OUTPUT_NORM,),
    "shared_head.head": (Role.DRAFT_OUTPUT,),
    "norm": (Role.DRAFT_OUTPUT_NORM,),
    "head": (Role.DRAFT_OUTPUT,),
    "main_proj": (Role.DRAFT_MAIN_PROJECTION,),
    "main_norm": (Role.DRAFT_MAIN_NORM,),
    "markov_head.markov_w1": (Role.DRAFT_MARKOV_EMBEDDING,),
    "markov_head.w1": (Role.DRAFT_MARKOV_EMBEDDING,),
    "markov_head.markov_w2": (Role.DRAFT_MARKOV_OUTPUT,),
    "markov_head.w2": (Role.DRAFT_MARKOV_OUTPUT,),
    "confidence_head.proj": (Role.DRAFT_CONFIDENCE,),
    "confidence_head": (Role.DRAFT_CONFIDENCE,),
    **_HYPER_HEAD,
}
_BIASES: Mapping[str, Role] = {
    "self_attn.q_proj": Role.Q_BIAS,
    "self_attn.k_proj": Role.K_BIAS,
    "self_attn.v_proj": Role.V_BIAS,
    "self_attn.indexer.k_norm": Role.INDEXER_K_NORM_BIAS,
    "attn.indexer.k_norm": Role.INDEXER_K_NORM_BIAS,
    "mlp.gate": Role.ROUTER_BIAS,
    "ffn.gate": Role.ROUTER_BIAS,
}
_GGUF_FUSED: Mapping[str, tuple[Role, ...]] = {
    "ffn_gate_up_exps": (Role.EXPERTS_GATE, Role.EXPERTS_UP),
}
_DRAFT_ROLES = frozenset(role for role in Role if role.startswith(("nextn.", "dspark.")))

_LAYER = re.compile(r"(?P<kind>layers|mtp|blk)\.(?P<number>\d{1,6})\.(?P<rest>.+)", re.DOTALL)
_EXPERT = re.compile(r"(?<=\bexperts\.)\d+\.")
# What quantizers put beside or in place of a weight: AWQ and GPTQ, compressed-tensors, ModelOpt,
# bitsandbytes, FBGEMM, DeepSeek (…_scale_inv, scale), cache scales of FP8 checkpoints.
_PART = re.compile(
    r"\.(?:weight(?:_scale_inv|_scale_2|_scale|_packed|_shape|_zero_point|_g_idx|_format|_global_scale)?"
    r"|weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+)"
    r"|input_scale(?:_2|_ub)?|input_global_scale|activation_scale|scale|scales|qweight|qzeros|g_idx|SCB"
    r"|[kv]_scale|output_scale)\Z"
)
_WRAPPERS = re.compile(r"(?:(?:model|language_model|language|text_model)\.)+")
_ENCODER = re.compile(
    r"(?:model\.)?(?:vision|visual|vision_tower|vision_model|vision_encoder|sam_model|qwen2_model|aligner|projector"
    r"|multi_modal_projector|audio_tower|gen_\w+|image_newline|view_seperator|tile_indicators"
    r"|image_\w+|v|mm)(?:\.|$)"
)
# Tables of the rotary embedding that some converters store: the engine computes its own.
_CONSTANT = re.compile(r"(?:rope_(?:freqs|factors_\w+)|.*rotary_emb\.inv_freq)(?:\.weight)?")

_memo: WeakKeyDictionary[Header, CheckpointWeights] = WeakKeyDictionary()


def checkpoint_weights(header: Header) -> CheckpointWeights:
    """The bytes of a checkpoint by role and layer; worked out once per header."""
    known = _memo.get(header)
    if known is None:
        known = _memo[header] = _sum_up(header)
    return known


def role_of(name: str) -> tuple[tuple[Role, ...], int | None, bool] | None:
    """The roles that a tensor's name stands for (two for a fused pair), its layer, and whether the name says
    that it is a draft layer, counted apart; None for an unknown name. Of experts the number is ignored.
    """
    wrapped = _WRAPPERS.match(name)
    bare = name[wrapped.end() :] if wrapped is not None else name
    match = _LAYER.match(bare)
    if match is None:
        if _ENCODER.match(name) or _ENCODER.match(bare):
            return (Role.ENCODER,), None, False
        return _found(_outer_roles(bare), None, False)
    rest = _EXPERT.sub("", match["rest"])
    known = _cache.get((match["kind"], rest))
    if known is None:
        known = _gguf_roles(rest) if match["kind"] == "blk" else _layer_roles(rest)
        if len(_cache) < _MOST_CACHED:
            _cache[match["kind"], rest] = known
    return _found(known, int(match["number"]), match["kind"] == "mtp")


_MOST_CACHED = 4096
_cache: dict[tuple[str, str], tuple[Role, ...]] = {}


def _found(
    roles: tuple[Role, ...], layer: int | None, draft: bool
) -> tuple[tuple[Role, ...], int | None, bool] | None:
    return (roles, layer, draft) if roles else None


def _outer_roles(bare: str) -> tuple[Role, ...]:
    return _OUTER.get(_without_part(bare)) or _gguf_roles(bare)


def _layer_roles(rest: str) -> tuple[Role, ...]:
    if rest.endswith(".bias"):
        role = _BIASES.get(rest.removesuffix(".bias"))
        return (role,) if role is not None else ()
    return _IN_LAYER.get(_without_part(rest), ())


def _without_part(name: str) -> str:
    part = _PART.search(name)
    return name[: part.start()] if part is not None else name


def _gguf_roles(rest: str) -> tuple[Role, ...]:
    base, _, ending = rest.rpartition(".")
    if ending not in ("weight", "bias"):
        return ()
    fused = _GGUF_FUSED.get(base)
    if fused is not None:
        return fused
    for value in (f"{base}.bias", base) if ending == "bias" else (base,):
        if value in _GGUF_NAMES:
            return (_GGUF_NAMES[value],)
    return ()


_GGUF_NAMES: Mapping[str, Role] = {role.value: role for role in Role if role is not Role.ENCODER}


def _sum_up(header: Header) -> CheckpointWeights:
    sums: dict[tuple[Role, int | None, bool], _Sum] = {}
    unknown_tensors = unknown_bytes = 0
    for tensor in header.tensors:
        found = role_of(tensor.name)
        if found is None:
            if not _CONSTANT.fullmatch(tensor.name):
                unknown_tensors += 1
                unknown_bytes += tensor.size_bytes
            continue
        roles, layer, draft = found
        share, rest = divmod(tensor.size_bytes, len(roles))
        for number, role in enumerate(roles):
            key = (role, layer, draft)
            one = sums.get(key)
            if one is None:
                one = sums[key] = _Sum()
            size = share + (rest if number == 0 else 0)
            one.bytes += size
            one.tensors += 1
            one.types[tensor.type] = one.types.get(tensor.type, 0) + size
    layers = _main_layers(sums)
    roles_found = [
        RoleWeights(
            role,
            layers + layer if draft and layer is not None else layer,
            one.bytes,
            max(one.types, key=lambda type_name: one.types[type_name]),
            one.tensors,
        )
        for (role, layer, draft), one in sums.items()
    ]
    notes = []
    if unknown_tensors:
        notes.append(
            f"the names of {unknown_tensors} tensors ({unknown_bytes} bytes) of the checkpoint are not known"
        )
    return CheckpointWeights(
        tuple(roles_found),
        layers,
        unknown_tensors,
        unknown_bytes,
        tuple(notes),
        MappingProxyType({(one.role, one.layer): one.bytes for one in roles_found}),
    )


def _main_layers(sums: Mapping[tuple[Role, int | None, bool], _Sum]) -> int:
    """Number of layers before the first draft layer: those with a draft's tensors are drafts."""
    numbers = {layer for _, layer, draft in sums if layer is not None and not draft}
    drafts = {
        layer for role, layer, draft in sums if role in _DRAFT_ROLES and layer is not None and not draft
    }
    return max(numbers - drafts, default=-1) + 1
