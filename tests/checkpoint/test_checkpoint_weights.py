"""Header bytes by role and layer agree with what the recipes say of the same checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkpoint_files import (
    GgufTensor,
    SafeTensor,
    deepseek_v3_tensors,
    gguf_keys,
    gguf_tensors,
    write_gguf,
    write_safetensors,
    write_sharded,
)

from exporter.models.architecture import Architecture, LatentAttention, draft_tensors, main_tensors
from exporter.models.catalog import catalog
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.weights import CheckpointWeights, checkpoint_weights, role_of
from exporter.models.gguf import GgufLayout
from exporter.models.quantization import Container, stored_tensors
from exporter.models.roles import Role, Tensor
from exporter.models.rows import architectures

IN_GGUF = {name: one for name, one in architectures().items() if one.gguf_architecture}


def by_role(weights: CheckpointWeights) -> dict[tuple[Role, int | None], int]:
    return {(one.role, one.layer): one.bytes for one in weights.roles}


def recipe(
    architecture: Architecture, quantization: str, container: Container, layout: GgufLayout = GgufLayout.SPLIT
) -> dict[tuple[Role, int | None], int]:
    sums: dict[tuple[Role, int | None], int] = {}
    for drafts in (False, True) if container is Container.SAFETENSORS else (False,):
        for stored in stored_tensors(architecture, quantization, container, drafts, layout):
            key = (stored.tensor.role, stored.tensor.layer)
            sums[key] = sums.get(key, 0) + stored.bytes
    return sums


def test_deepseek_v3_as_published(tmp_path: Path) -> None:
    architecture = catalog().resolve("deepseek-ai/DeepSeek-V3").architecture
    header = CheckpointReader().read(write_sharded(tmp_path, list(deepseek_v3_tensors(architecture)), 163))
    # 163 files, 91,991 tensors (model.safetensors.index.json of the repository), 688,574,839,360 bytes.
    assert (len(header.files), len(header.tensors)) == (163, 91_991)
    assert header.tensor_bytes == 688_574_839_360
    weights = checkpoint_weights(header)
    assert (weights.layers, weights.unknown_tensors, weights.notes) == (61, 0, ())
    assert by_role(weights) == recipe(architecture, "fp8", Container.SAFETENSORS)
    assert weights.main_bytes + weights.draft_bytes == header.tensor_bytes
    assert checkpoint_weights(header) is weights


@pytest.mark.parametrize("quantization", ["Q4_K_M", "Q2_K"])
@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_of_every_architecture(tmp_path: Path, name: str, quantization: str) -> None:
    architecture = IN_GGUF[name]
    layouts = [GgufLayout.SPLIT]
    if isinstance(architecture.attention, LatentAttention):
        layouts.append(GgufLayout.JOINT)
    for layout in layouts:
        tensors = gguf_tensors(architecture, quantization, layout)
        path = write_gguf(tmp_path / f"{layout}.gguf", gguf_keys(architecture, name, None), tensors)
        weights = checkpoint_weights(CheckpointReader().read(path))
        assert weights.unknown_tensors == 0
        assert by_role(weights) == recipe(architecture, quantization, Container.GGUF, layout)


V4_NAMES = {
    "embed.weight": Role.EMBEDDING,
    "head.weight": Role.OUTPUT,
    "norm.weight": Role.OUTPUT_NORM,
    "hc_head_fn": Role.HYPER_HEAD,
    "hc_head_base": Role.HYPER_HEAD_BASE,
    "hc_head_scale": Role.HYPER_HEAD_SCALE,
    "layers.2.attn_norm.weight": Role.ATTENTION_NORM,
    "layers.2.ffn_norm.weight": Role.FFN_NORM,
    "layers.2.attn.wq_a.weight": Role.Q_A,
    "layers.2.attn.wq_a.scale": Role.Q_A,
    "layers.2.attn.q_norm.weight": Role.Q_A_NORM,
    "layers.2.attn.wq_b.weight": Role.Q_B,
    "layers.2.attn.wkv.weight": Role.KV,
    "layers.2.attn.kv_norm.weight": Role.KV_NORM,
    "layers.2.attn.wo_a.weight": Role.OUTPUT_A,
    "layers.2.attn.wo_b.scale": Role.OUTPUT_B,
    "layers.2.attn.attn_sink": Role.SINKS,
    "layers.2.attn.compressor.ape": Role.COMPRESSOR_POSITION,
    "layers.2.attn.compressor.wkv.weight": Role.COMPRESSOR_KV,
    "layers.2.attn.compressor.wgate.weight": Role.COMPRESSOR_GATE,
    "layers.2.attn.compressor.norm.weight": Role.COMPRESSOR_NORM,
    "layers.2.attn.indexer.wq_b.scale": Role.INDEXER_Q,
    "layers.2.attn.indexer.weights_proj.weight": Role.INDEXER_PROJECTION,
    "layers.2.attn.indexer.compressor.wkv.weight": Role.INDEXER_COMPRESSOR_KV,
    "layers.2.attn.indexer.compressor.wgate.weight": Role.INDEXER_COMPRESSOR_GATE,
    "layers.2.attn.indexer.compressor.ape": Role.INDEXER_COMPRESSOR_POSITION,
    "layers.2.attn.indexer.compressor.norm.weight": Role.INDEXER_COMPRESSOR_NORM,
    "layers.2.hc_attn_fn": Role.HYPER_ATTENTION,
    "layers.2.hc_attn_base": Role.HYPER_ATTENTION_BASE,
    "layers.2.hc_attn_scale": Role.HYPER_ATTENTION_SCALE,
    "layers.2.hc_ffn_fn": Role.HYPER_FFN,
    "layers.2.hc_ffn_base": Role.HYPER_FFN_BASE,
    "layers.2.hc_ffn_scale": Role.HYPER_FFN_SCALE,
    "layers.2.ffn.gate.weight": Role.ROUTER,
    "layers.2.ffn.gate.bias": Role.ROUTER_BIAS,
    "layers.2.ffn.gate.bias_vl": Role.ROUTER_IMAGE_BIAS,
    "layers.2.ffn.gate.tid2eid": Role.ROUTER_HASH,
    "layers.2.ffn.experts.255.w1.weight": Role.EXPERTS_GATE,
    "layers.2.ffn.experts.255.w2.scale": Role.EXPERTS_DOWN,
    "layers.2.ffn.experts.255.w3.weight": Role.EXPERTS_UP,
    "layers.2.ffn.shared_experts.w1.weight": Role.SHARED_GATE,
    "layers.2.ffn.shared_experts.w2.weight": Role.SHARED_DOWN,
    "layers.2.ffn.shared_experts.w3.scale": Role.SHARED_UP,
    "layers.14.engram.embed.weight": Role.ENGRAM_TABLE,
    "layers.14.engram.embed.scale": Role.ENGRAM_TABLE,
    "layers.14.engram.wkv.weight": Role.ENGRAM_PROJECTION,
    "layers.14.engram.q_weight": Role.ENGRAM_Q,
    "layers.14.engram.k_weight": Role.ENGRAM_K,
    "layers.20.attn.indexer.wk.weight": Role.INDEXER_K,
    "layers.20.attn.indexer.k_norm.weight": Role.INDEXER_K_NORM,
    "mtp.0.e_proj.weight": Role.DRAFT_EMBEDDING_PROJECTION,
    "mtp.0.h_proj.scale": Role.DRAFT_HIDDEN_PROJECTION,
    "mtp.0.enorm.weight": Role.DRAFT_EMBEDDING_NORM,
    "mtp.0.hnorm.weight": Role.DRAFT_HIDDEN_NORM,
    "mtp.0.norm.weight": Role.DRAFT_OUTPUT_NORM,
    "mtp.0.emb.tok_emb.weight": Role.DRAFT_EMBEDDING,
    "mtp.0.head.weight": Role.DRAFT_OUTPUT,
    "mtp.0.hc_head_fn": Role.HYPER_HEAD,
    "mtp.0.main_proj.weight": Role.DRAFT_MAIN_PROJECTION,
    "mtp.0.main_norm.weight": Role.DRAFT_MAIN_NORM,
    "mtp.2.markov_head.markov_w1.weight": Role.DRAFT_MARKOV_EMBEDDING,
    "mtp.2.markov_head.markov_w2.weight": Role.DRAFT_MARKOV_OUTPUT,
    "mtp.2.confidence_head.proj.weight": Role.DRAFT_CONFIDENCE,
    "vision.blocks.0.attn.wqkv.weight": Role.ENCODER,
    "aligner.w1.weight": Role.ENCODER,
}
OTHER_NAMES = {
    "model.layers.3.self_attn.q_proj.qweight": Role.Q,
    "model.layers.3.self_attn.q_proj.qzeros": Role.Q,
    "model.layers.3.self_attn.q_proj.scales": Role.Q,
    "model.layers.3.self_attn.q_proj.g_idx": Role.Q,
    "model.layers.3.self_attn.q_proj.bias": Role.Q_BIAS,
    "model.layers.3.self_attn.k_proj.k_scale": Role.K,
    "model.layers.3.mlp.down_proj.weight_packed": Role.FFN_DOWN,
    "model.layers.3.mlp.down_proj.weight_shape": Role.FFN_DOWN,
    "model.layers.3.mlp.down_proj.weight_scale": Role.FFN_DOWN,
    "model.layers.3.mlp.up_proj.weight.absmax": Role.FFN_UP,
    "model.layers.3.mlp.up_proj.weight.quant_state.bitsandbytes__nf4": Role.FFN_UP,
    "model.layers.3.mlp.up_proj.SCB": Role.FFN_UP,
    "model.layers.3.mlp.experts.17.gate_proj.weight_scale_2": Role.EXPERTS_GATE,
    "model.layers.3.mlp.experts.17.gate_proj.input_scale": Role.EXPERTS_GATE,
    "model.layers.3.mlp.gate.e_score_correction_bias": Role.ROUTER_BIAS,
    "model.layers.3.self_attn.indexer.k_norm.bias": Role.INDEXER_K_NORM_BIAS,
    "model.layers.3.self_attn.indexer.wq_b.weight_scale_inv": Role.INDEXER_Q,
    "model.layers.61.eh_proj.weight": Role.DRAFT_PROJECTION,
    "language.model.layers.3.mlp.down_proj.weight": Role.FFN_DOWN,
    "language_model.model.embed_tokens.weight": Role.EMBEDDING,
    "model.vision_model.transformer.layers.0.mlp.fc1.weight": Role.ENCODER,
    "gen_vision_model.decoder.conv_in.weight": Role.ENCODER,
    "blk.3.attn_v_b.weight": Role.V_B,
    "blk.3.attn_q.bias": Role.Q_BIAS,
    "blk.3.exp_probs_b.bias": Role.ROUTER_BIAS,
    "output_hc_fn.weight": Role.HYPER_HEAD,
}


@pytest.mark.parametrize(("name", "role"), [*V4_NAMES.items(), *OTHER_NAMES.items()])
def test_names_of_every_convention(name: str, role: Role) -> None:
    found = role_of(name)
    assert found is not None
    assert found[0] == (role,)
    assert found[2] == name.startswith("mtp.")


@pytest.mark.parametrize("name", ["deepseek-v4-flash", "deepseek-v4-flash-dspark", "deepseek-v4.1-flash"])
def test_every_role_of_v4_has_a_name(name: str) -> None:
    architecture = architectures()[name]
    named = set(V4_NAMES.values()) | {role for found in OTHER_NAMES.values() for role in (found,)}
    assert {tensor.role for tensor in (*main_tensors(architecture), *draft_tensors(architecture))} <= named


TEMPLATES = {role: name for name, role in reversed(V4_NAMES.items())}


def v4_name(tensor: Tensor, layers: int) -> str:
    template = TEMPLATES[tensor.role]
    if tensor.layer is None:
        return template
    where = f"layers.{tensor.layer}" if tensor.layer < layers else f"mtp.{tensor.layer - layers}"
    return f"{where}.{template}" if template.startswith("hc_head") else re.sub(r"^\w+\.\d+", where, template)


@pytest.mark.parametrize(
    ("name", "payload_bytes"),
    [
        # Sums of the published repositories' tensors.
        ("deepseek-ai/DeepSeek-V4-Flash-0731", 166_878_536_440),
        ("deepseek-ai/DeepSeek-V4-Pro-0813", 892_727_580_904),
    ],
)
def test_payload_of_v4_as_published(tmp_path: Path, name: str, payload_bytes: int) -> None:
    model = catalog().resolve(name)
    architecture = model.architecture
    tensors = [
        SafeTensor(v4_name(stored.tensor, architecture.layers), (stored.bytes,), "U8")
        for drafts in (False, True)
        for stored in stored_tensors(architecture, model.native_quantization, Container.SAFETENSORS, drafts)
    ]
    header = CheckpointReader().read(write_safetensors(tmp_path / "model.safetensors", tensors))
    weights = checkpoint_weights(header)
    assert header.tensor_bytes == weights.main_bytes + weights.draft_bytes == payload_bytes
    assert weights.layers == architecture.layers
    assert by_role(weights) == recipe(architecture, model.native_quantization, Container.SAFETENSORS)


def test_fused_pairs_are_halved_and_unknown_names_counted(tmp_path: Path) -> None:
    path = write_safetensors(
        tmp_path / "model.safetensors",
        [
            SafeTensor("model.layers.0.mlp.experts.gate_up_proj", (4, 6, 8), "BF16"),
            SafeTensor("model.layers.0.mlp.secret_sauce.weight", (5,), "F32"),
            SafeTensor("model.layers.0.self_attn.rotary_emb.inv_freq", (5,), "F32"),
        ],
    )
    weights = checkpoint_weights(CheckpointReader().read(path))
    assert by_role(weights) == {(Role.EXPERTS_GATE, 0): 192, (Role.EXPERTS_UP, 0): 192}
    assert (weights.unknown_tensors, weights.unknown_bytes) == (1, 20)
    assert weights.notes == ("the names of 1 tensors (20 bytes) of the checkpoint are not known",)
    assert "secret" not in str(weights.notes)


def test_draft_stages_follow_the_last_layer(tmp_path: Path) -> None:
    tensors = [
        SafeTensor(f"{name}.attn_norm.weight", (8,), "BF16")
        for name in ("layers.0", "layers.1", "mtp.0", "mtp.1")
    ]
    weights = checkpoint_weights(
        CheckpointReader().read(write_safetensors(tmp_path / "m.safetensors", tensors))
    )
    assert weights.layers == 2
    assert sorted(layer for _, layer in by_role(weights) if layer is not None) == [0, 1, 2, 3]
    assert (weights.main_bytes, weights.draft_bytes) == (32, 32)
    assert weights.layer_bytes(3) == {Role.ATTENTION_NORM: 16}
    assert weights.bytes_of(Role.ATTENTION_NORM, 4) is None


def test_type_is_that_of_most_bytes(tmp_path: Path) -> None:
    tensors = [
        GgufTensor("blk.0.ffn_up.weight", (256, 8), 12, 1152),
        GgufTensor("output.weight", (256,), 14, 210),
    ]
    weights = checkpoint_weights(CheckpointReader().read(write_gguf(tmp_path / "m.gguf", [], tensors)))
    assert {one.role: one.type for one in weights.roles} == {Role.FFN_UP: "Q4_K", Role.OUTPUT: "Q6_K"}
