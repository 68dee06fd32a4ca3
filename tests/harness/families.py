"""A tiny model of every architecture that the installed transformers has for a task."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.conftest import WORDS

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
LARGEST = 5_000_000  # parameters: a model of more is not tiny

_SPECIAL = {"pad_token_id": 0, "unk_token_id": 1, "mask_token_id": 1, "bos_token_id": 2, "cls_token_id": 2}
_SPECIAL |= {"decoder_start_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
_SPECIAL |= {"image_token_id": 20, "audio_token_id": 21, "video_token_id": 22}
_SIZES = {
    24: "vocab_size vocab_size_per_layer_input intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim n_inner "
    "hidden_dim d_ff dff d_inner ffn_hidden_size max_xpath_tag_unit_embeddings",
    16: "hidden_size d_model n_embd dim n_embed embedding_size emb_dim word_embed_proj_dim sliding_window "
    "local_attention attention_window num_latents d_latents gated_norm_rank index_topk linear_head_dim "
    "max_2d_position_embeddings",
    8: "head_dim d_kv kv_channels attention_head_size d_head moe_intermediate_size shared_expert_intermediate_size "
    "expert_ffn_hidden_size kv_lora_rank q_lora_rank v_head_dim state_size ssm_state_size mamba_d_state mamba_d_head "
    "mamba_headdim linear_key_head_dim linear_value_head_dim index_head_dim hidden_size_per_layer_input "
    "xpath_unit_hidden_size entity_emb_size",
    4: "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim qk_nope_head_dim "
    "mamba_n_heads time_step_rank mamba_dt_rank rotary_dim zero_expert_num num_buckets",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
    "num_encoder_layers num_attention_heads num_key_value_heads n_head n_heads num_heads encoder_attention_heads "
    "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads multi_query_group_num "
    "num_experts_per_tok num_experts_per_token moe_topk mamba_expand linear_num_value_heads linear_num_key_heads "
    "linear_num_heads index_n_heads num_self_attends_per_block num_self_attention_heads num_cross_attention_heads "
    "type_vocab_size",
    1: "num_shared_experts n_shared_experts n_group topk_group n_groups num_expert_group first_k_dense_replace",
    64: "max_position_embeddings n_positions max_target_positions n_ctx entity_vocab_size "
    "max_xpath_subs_unit_embeddings",
}
TINY = {name: size for size, names in _SIZES.items() for name in names.split()} | _SPECIAL

# what a family needs beside these
FAMILIES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 24},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 2, "shape_size": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "mamba2": {"num_heads": 4},
    "markuplm": {"tag_pad_id": 20, "subs_pad_id": 30},
    "perceiver": {"max_position_embeddings": 64},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 1,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 16},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "is_decoder": True,
        "feed_forward_size": 24,
        "hash_seed": 0,
    },
    "roc_bert": {
        "shape_vocab_size": 24,
        "pronunciation_vocab_size": 24,
        "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
    },
    "t5": {"decoder_start_token_id": 0},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def config_of(model_type: str) -> Any:
    """The family's config with small sizes."""
    return _small(CONFIG_MAPPING[model_type], FAMILIES.get(model_type, {}))


def _small(config_class: Any, own: dict[str, Any]) -> Any:
    default = config_class()
    known = {*vars(default), *config_class.attribute_map, *inspect.signature(config_class.__init__).parameters}
    given: dict[str, Any] = {name: size for name, size in TINY.items() if name in known}
    if "qk_rope_head_dim" in known:
        given["head_dim"] = given["qk_rope_head_dim"]
    count = given.get("num_hidden_layers", 2)
    for name in ("layer_types", "mlp_layer_types"):
        kinds = list(dict.fromkeys(getattr(default, name, None) or ()))
        if kinds and name in vars(default):
            count = max(count, len(kinds))
    for name in ("layer_types", "mlp_layer_types"):
        kinds = list(dict.fromkeys(getattr(default, name, None) or ()))
        if kinds and name in vars(default):
            given[name] = (kinds * count)[:count]
            given["num_hidden_layers"] = count
    for name in config_class.sub_configs:
        part = getattr(default, name, None)
        if part is not None:
            given[name] = _small(type(part), FAMILIES.get(part.model_type, {}))
    return config_class(**{**given, **own})


def names(auto_model: str) -> list[str]:
    """The families that transformers has for a task."""
    mapping = {
        "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForMultipleChoice": modeling_auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES,
    }
    return sorted(mapping[auto_model])


def build(auto_model: str, model_type: str) -> Any:
    """A model of random weights. Raises whatever transformers does where a tiny config is none for the family."""
    config = config_of(model_type)
    auto = getattr(transformers, auto_model)
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters with a tiny config")
    torch.manual_seed(0)
    return auto.from_config(config)


def tokenizer(config: Any) -> Any:
    """A whitespace tokenizer that ends a text as RoBERTa's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast: Any = transformers.PreTrainedTokenizerFast  # untyped
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if hasattr(config, "type_vocab_size") else [])]
    return fast(tokenizer_object=words, model_max_length=32, eos_token="[SEP]", model_input_names=inputs, **marks)


def save(auto_model: str, model_type: str, folder: Path) -> None:
    """The tiny model and its tokenizer as a folder."""
    model = build(auto_model, model_type)
    model.save_pretrained(folder)
    tokenizer(model.config).save_pretrained(folder)
