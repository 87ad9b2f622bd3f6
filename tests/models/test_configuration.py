"""Architectures from config.json: those of published models, and files that nobody should trust."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.models.additions import known_architecture, model_from_config, models_from_document
from exporter.models.architecture import Architecture, main_tensors
from exporter.models.catalog import catalog
from exporter.models.configuration import ConfigurationError, architecture_from_config
from exporter.models.native_quantization import quantization_from_config
from exporter.models.rows import architectures

V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "vocab_size": 129280,
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 163840,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"},
}
QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
V2_LITE = {
    **V3,
    "model_type": "deepseek_v2",
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "q_lora_rank": None,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "topk_method": "greedy",
    "vocab_size": 102400,
    "num_nextn_predict_layers": 0,
}
V4_FLASH = {
    "model_type": "deepseek_v4",
    "hidden_size": 4096,
    "num_hidden_layers": 43,
    "num_attention_heads": 64,
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "q_lora_rank": 1024,
    "o_lora_rank": 1024,
    "o_groups": 8,
    "vocab_size": 129280,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "num_hash_layers": 3,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 512,
    "sliding_window": 128,
    "hc_mult": 4,
    "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0],
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 1048576,
    "expert_dtype": "fp4",
}
V41_FLASH = {
    "model_type": "deepseek_v41",
    "text_config": {
        **V4_FLASH,
        "model_type": "deepseek_v41_text",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "q_lora_rank": 1280,
        "moe_intermediate_size": 2304,
        "n_routed_experts": 384,
        "num_hash_layers": 0,
        "index_n_heads": 32,
        "compress_ratios": [0, 0, *[2] * 18, *[1] * 20, 0, 0, 0],
        "kv_source_layer_ids": [2, 8, 14, 20],
        "index_source_layer_ids": [2, 8, 14, 20, 24, 28, 32, 36],
        "engram_layer_ids": [1, 14],
        "engram_num_embeddings": [384006168, 384016682],
        "engram_head_dim": 256,
        "engram_n_heads": 8,
        "engram_max_ngram_size": 4,
        "num_nextn_predict_layers": 3,
        "dspark_markov_rank": 256,
        "dspark_target_layer_ids": [37, 38, 39],
        "dspark_n_routed_experts": 128,
        "dspark_num_experts_per_tok": 3,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "downsample_ratio": 3,
    },
}
DSPARK = {**V4_FLASH, "dspark_markov_rank": 256, "dspark_target_layer_ids": [40, 41, 42]}
SAMPLES = {
    "deepseek-v3": V3,
    "r1-distill-qwen-7b": QWEN_7B,
    "deepseek-v2-lite": V2_LITE,
    "deepseek-v4-flash": V4_FLASH,
    "deepseek-v4-flash-base": {**V4_FLASH, "expert_dtype": "fp8"},
    "deepseek-v4-flash-dspark": DSPARK,
    "deepseek-v4.1-flash": V41_FLASH,
}


def built(config: dict[str, object], name: str = "x") -> Architecture:
    return architecture_from_config(config, name)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_published_configuration_is_the_packaged_architecture(name: str) -> None:
    known = architectures()[name]
    assert replace(built(SAMPLES[name], name), tokenizer_merges=known.tokenizer_merges) == known
    assert known_architecture(built(SAMPLES[name])) == name


def test_v3_2_has_an_indexer_and_otherwise_the_numbers_of_v3() -> None:
    config = {
        **V3,
        "model_type": "deepseek_v32",
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 2048,
    }
    assert built(config).parameters == 671_877_944_064


def test_the_language_model_of_a_vision_model_is_nested() -> None:
    ocr = {
        "model_type": "deepseek_vl_v2",
        "language_config": {
            **V2_LITE,
            "use_mla": False,
            "hidden_size": 1280,
            "num_hidden_layers": 12,
            "num_attention_heads": 10,
            "num_key_value_heads": 10,
            "intermediate_size": 6848,
            "moe_intermediate_size": 896,
            "vocab_size": 129280,
        },
    }
    assert built(ocr).parameters == 2_934_734_080


def test_a_class_stands_for_a_missing_model_type() -> None:
    config = {key: value for key, value in QWEN_7B.items() if key != "model_type"}
    assert built(config).parameters == 7_615_616_512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is not known; known: llama, qwen2"),
        ({"model_type": None, "architectures": None}, "model_type is missing"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number from 1 to 1024"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"hidden_size": -1}, "hidden_size must be a whole number"),
        ({"hidden_size": True}, "hidden_size must be a whole number"),
        ({"hidden_size": "7168"}, "hidden_size must be a whole number"),
        ({"hidden_size": 7168.0}, "hidden_size must be a whole number"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"n_routed_experts": 2**40}, "n_routed_experts must be a whole number"),
        ({"num_experts_per_tok": 257}, "num_experts_per_tok must be a whole number from 1 to 256"),
        ({"moe_layer_freq": 2}, "moe_layer_freq must be 1"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
    ],
)
def test_values_that_no_model_has_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        built({**V3, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compress_ratios": [4] * 42}, "compress_ratios must name every layer"),
        ({"compress_ratios": "0,0,4"}, "compress_ratios must be a list"),
        ({"compress_ratios": [0] * 10**6}, "compress_ratios must be a list of at most"),
        ({"compress_ratios": [-1] * 43}, "compress_ratios must hold whole numbers"),
        ({"o_groups": 7}, "o_groups must divide"),
    ],
)
def test_lists_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        built({**V4_FLASH, **change})


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="num_key_value_heads must divide"):
        built({**QWEN_7B, "num_key_value_heads": 5})
    with pytest.raises(ConfigurationError, match="must divide hidden_size"):
        built({**QWEN_7B, "num_attention_heads": 3, "num_key_value_heads": 1})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=50),
)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_any_change_is_an_architecture_or_a_named_error(name: str, data: st.DataObject) -> None:
    config = dict(SAMPLES[name])
    field = data.draw(st.sampled_from(sorted(config)))
    config[field] = data.draw(VALUES)
    try:
        arch = built(config)
    except ConfigurationError as error:
        assert len(str(error)) < 250
        return
    assert all(tensor.parameters > 0 for tensor in main_tensors(arch))


@given(st.dictionaries(st.text(max_size=30), VALUES, max_size=30))
def test_any_document_is_answered(document: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        built({**document, "model_type": document.get("model_type", "nothing")})
    assert quantization_from_config(document) is None or isinstance(quantization_from_config(document), str)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "fp8"}, "fp8_tensor"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq_g64"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq_int8"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, None),
        ({"quant_method": "bitsandbytes", "bnb_4bit_use_double_quant": True}, "nf4_double"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bnb_int8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["l.self_attn.q_a_proj"]}, "nvfp4_wo"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["l.0.self_attn*"]}, "nvfp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128},
                        "input_activations": None,
                    }
                },
            },
            "w4a16",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                        "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
                    }
                },
            },
            "fp8_channel",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed_tensors"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "nobody-knows"}, None),
        ({}, "bf16"),
    ],
)  # fmt: skip
def test_quantization_of_a_configuration(quantization: dict[str, object], expected: str | None) -> None:
    config = {**QWEN_7B, "quantization_config": quantization}
    assert quantization_from_config(config) == expected


def test_native_quantization_of_v4_follows_its_experts() -> None:
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert quantization_from_config({**V4_FLASH, "quantization_config": blocks}) == "mxfp4_fp8"
    base = {**V4_FLASH, "expert_dtype": "fp8", "quantization_config": blocks}
    assert quantization_from_config(base) == "fp8"


def test_an_operators_document_extends_the_catalogue() -> None:
    document = {
        "models": [
            {
                "id": "acme/DeepSeek-R1-Acme",
                "architecture": "deepseek-v3",
                "native": "fp8",
                "names": ["acme-r1"],
            },
            {"id": "acme/tiny", "config": {**QWEN_7B, "num_hidden_layers": 2}},
        ]
    }
    known = catalog().extended(models_from_document(document))
    assert known.resolve("acme-r1").architecture is architectures()["deepseek-v3"]
    assert known.resolve("acme/DeepSeek-R1-Acme-AWQ").id == "acme/DeepSeek-R1-Acme"
    assert known.resolve("acme/tiny").architecture.layers == 2
    assert known.resolve("deepseek-ai/DeepSeek-V3").id == "deepseek-ai/DeepSeek-V3"


def test_an_operators_name_wins_over_a_packaged_one() -> None:
    own = models_from_document({"models": [{"id": "DeepSeek-R1", "architecture": "deepseek-v2-lite"}]})
    assert catalog().extended(own).resolve("DeepSeek-R1").architecture_name == "deepseek-v2-lite"


def test_a_bare_configuration_is_a_model_with_its_quantization() -> None:
    model = model_from_config(V3, "/srv/models/mine")
    assert (model.architecture_name, model.native_quantization) == ("deepseek-v3", "fp8")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "must hold a list `models`"),
        ({"models": [], "more": 1}, "must hold a list `models`"),
        ({"models": [5]}, r"models\[0\] must be a table"),
        ({"models": [{"id": "a", "architecture": "deepseek-v3", "secret": 1}]}, "field that is not known"),
        ({"models": [{"id": "a"}]}, "either architecture or config"),
        (
            {"models": [{"id": "a", "architecture": "deepseek-v9"}]},
            "architecture is not known; known: deepseek-",
        ),
        ({"models": [{"id": "", "architecture": "deepseek-v3"}]}, "id must be a name"),
        ({"models": [{"id": "a", "architecture": "deepseek-v3", "native": "int3"}]}, "native is not"),
        (
            {"models": [{"id": "a", "config": {"model_type": "bert"}}]},
            r"models\[0\].config: model_type is not",
        ),
    ],
)
def test_documents_that_are_wrong_are_refused_by_place(document: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        models_from_document(document)
