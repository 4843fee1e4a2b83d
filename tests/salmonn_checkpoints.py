"""A small SALMONN checkpoint in the published layout: four parts, their weights by the published names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from audio_llm_checkpoints import TEXT, TEXTS, randomise

BEATS = {
    "input_patch_size": 16,
    "embed_dim": 12,
    "conv_bias": False,
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 64,
    "gru_rel_pos": True,
    "dropout": 0.0,
    "finetuned_model": True,
    "predictor_class": 5,
}
"""Settings of a published checkpoint, with small sizes."""


def beats_shapes(cfg: dict) -> dict[str, tuple[int, ...]]:
    """Return the published names of weights and their shapes."""
    wide, inner, heads = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"], cfg["encoder_attention_heads"]
    patch, embed, kernel = cfg["input_patch_size"], cfg["embed_dim"], cfg["conv_pos"]
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (embed, 1, patch, patch),
        "layer_norm.weight": (embed,),
        "layer_norm.bias": (embed,),
        "post_extract_proj.weight": (wide, embed),
        "post_extract_proj.bias": (wide,),
        "encoder.pos_conv.0.bias": (wide,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (wide, wide // cfg["conv_pos_groups"], kernel),
        "encoder.layer_norm.weight": (wide,),
        "encoder.layer_norm.bias": (wide,),
        "predictor.weight": (cfg["predictor_class"], wide),
        "predictor.bias": (cfg["predictor_class"],),
    }
    for number in range(cfg["encoder_layers"]):
        at = f"encoder.layers.{number}"
        linear = {f"self_attn.{name}_proj": (wide, wide) for name in ("q", "k", "v", "out")}
        linear |= {"fc1": (inner, wide), "fc2": (wide, inner), "self_attn.grep_linear": (8, wide // heads)}
        for name, shape in linear.items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{at}.{name}.weight": (wide,), f"{at}.{name}.bias": (wide,)}
        shapes[f"{at}.self_attn.grep_a"] = (1, heads, 1, 1)
        shapes[f"{at}.self_attn.relative_attention_bias.weight"] = (cfg["num_buckets"], heads)
    return shapes


def beats_checkpoint(seed: int = 0, **changes) -> dict:
    """Return what a file of BEATs holds; layers share one table of biases, as published."""
    cfg = BEATS | changes
    rng = np.random.default_rng(seed)
    shapes = beats_shapes(cfg)
    state = {name: torch.as_tensor(rng.normal(0, 0.4, shapes[name]).astype(np.float32)) for name in sorted(shapes)}
    for number in range(1, cfg["encoder_layers"]):
        name = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
        state[name.format(number)] = state[name.format(0)]
    return {"cfg": cfg, "model": state}


def llama_tokenizer() -> transformers.LlamaTokenizer:
    """Return a tokenizer of Llama's kind: words behind a mark, bytes for what it does not know."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    learned.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    found = json.loads(learned.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    names += [piece for piece in sorted(found["vocab"], key=found["vocab"].get) if piece not in names]
    vocab = {piece: i for i, piece in enumerate(names)}
    return transformers.LlamaTokenizer(vocab=vocab, merges=[tuple(pair) for pair in found["merges"]])


def save_whisper(folder: Path) -> transformers.WhisperModel:
    """Save the first encoder, with the decoder that SALMONN leaves out."""
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=64, max_source_positions=1500, num_mel_bins=80,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    module = transformers.WhisperForConditionalGeneration(config)
    randomise(module, 1)
    module.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return module.model


def save_llama(folder: Path) -> transformers.LlamaForCausalLM:
    """Save the language model, with its tokenizer."""
    tokenizer = llama_tokenizer()
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT | {"num_key_value_heads": 4, **ids},
                                                                    vocab_size=len(tokenizer)))  # fmt: skip
    randomise(module, 2)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return module


def qformer(speech: int, sound: int) -> transformers.Blip2QFormerModel:
    """Return a Q-Former with cross attention in each layer."""
    config = transformers.Blip2QFormerConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3,
        cross_attention_frequency=1, encoder_hidden_size=speech + sound,
    )  # fmt: skip
    module = transformers.Blip2QFormerModel(config)
    randomise(module, 3)
    return module.eval()


def published(module: transformers.Blip2QFormerModel) -> dict[str, torch.Tensor]:
    """Return the weights of a Q-Former by the names of the published code."""
    names = {}
    for name, tensor in module.state_dict().items():
        old = name.replace("layernorm.", "embeddings.LayerNorm.").replace("attention.attention.", "attention.self.")
        names[f"speech_Qformer.bert.{old}"] = tensor
    return names


def own_weights(module: transformers.Blip2QFormerModel, speech: int, sound: int, seed: int = 4) -> dict:
    """Return what SALMONN's own file holds, constants of older libraries included."""
    torch.manual_seed(seed)
    wide, text = module.config.hidden_size, TEXT["hidden_size"]
    shapes = {"speech_query_tokens": (1, 1, wide), "speech_llama_proj.weight": (text, wide)}
    shapes |= {"speech_llama_proj.bias": (text,)}
    for name, size in (("ln_speech", speech), ("ln_audio", sound)):
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for number in range(TEXT["num_hidden_layers"]):
        for name in ("q_proj", "v_proj"):
            at = f"llama_model.base_model.model.model.layers.{number}.self_attn.{name}"
            shapes |= {f"{at}.lora_A.default.weight": (8, text), f"{at}.lora_B.default.weight": (text, 8)}
    state = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    state["speech_Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    state["llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
    return state | published(module)


def save_salmonn(folder: Path) -> Path:
    """Save a whole checkpoint with 100 thousand weights."""
    whisper, beats = save_whisper(folder / "whisper"), beats_checkpoint()
    save_llama(folder / "vicuna")
    sizes = whisper.config.d_model, BEATS["encoder_embed_dim"]
    torch.save(beats, folder / "beats.pt")
    torch.save({"model": own_weights(qformer(*sizes), *sizes), "epoch": 3}, folder / "salmonn_v1.pth")
    config = {"model_type": "salmonn", "whisper_path": "whisper", "beats_path": "beats.pt", "llama_path": "vicuna"}
    config |= {"ckpt": "salmonn_v1.pth", "num_attention_heads": 3}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
