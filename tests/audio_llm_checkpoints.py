"""Small checkpoints of the real audio-LLM classes, saved in the real format with real processors."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from training import qwen3_tokens

TEXTS = ["turn on the light in the kitchen", "what is the time", "play the next song", "Größe, naïve café, 今日は"] * 4


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.3) -> None:
    """Give every weight a random value, so that tokens depend on the audio."""
    torch.manual_seed(seed)
    for weight in module.parameters():
        weight.data = torch.randn_like(weight) * scale


def save_qwen3_asr(folder: Path, seed: int = 0) -> Path:
    """Save a Qwen3-ASR checkpoint with 30 thousand weights."""
    tokenizer = qwen3_tokens.train_tokenizer(TEXTS, merges=60)
    processor = qwen3_tokens.make_processor(tokenizer)
    audio = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "d_model": 32}
    text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    config = qwen3_tokens.make_config(tokenizer, audio=audio | {"downsample_hidden_size": 8}, text=text | heads)
    module = transformers.Qwen3ASRForConditionalGeneration(config)
    randomise(module, seed)
    module.generation_config = qwen3_tokens.generation_config(tokenizer)
    module.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


#: what the published templates of Qwen2-Audio and Qwen2.5-Omni write, without images and videos
OMNI_TEMPLATE = """\
{%- for m in messages -%}
{%- if loop.first and m.role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.content is string -%}{{- m.content -}}{%- else -%}
{%- for c in m.content -%}
{%- if c.type == 'audio' -%}{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}
{%- else -%}{{- c.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
AUDIO = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "d_model": 32}
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 2, 2]}


def _omni_config(kind: str, words: int, placeholder: int):
    text = TEXT | {"vocab_size": words}
    if kind == "qwen2-audio":
        return transformers.Qwen2AudioConfig(
            audio_config={"model_type": "qwen2_audio_encoder", **AUDIO},
            text_config={"model_type": "qwen2", **text},
            audio_token_index=placeholder,
        )
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 48}
    encoder = AUDIO | {"output_dim": 48}
    if kind == "qwen2.5-omni":
        return transformers.Qwen2_5OmniThinkerConfig(
            audio_config=encoder | {"num_mel_bins": 128},
            vision_config=vision,
            text_config=text | {"rope_parameters": MROPE},
            audio_token_index=placeholder,
            audio_start_token_id=placeholder - 2,
            vision_start_token_id=words - 1,
        )
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 12}
    return transformers.Qwen3OmniMoeThinkerConfig(
        audio_config=encoder | {"num_mel_bins": 128, "downsample_hidden_size": 8},
        vision_config=vision | {"deepstack_visual_indexes": [0]},
        text_config=text | experts | {"rope_parameters": MROPE | {"mrope_interleaved": True}},
        audio_token_id=placeholder,
        audio_start_token_id=placeholder - 2,
        vision_start_token_id=words - 1,
    )


OMNI_NETWORKS = {
    "qwen2-audio": "Qwen2AudioForConditionalGeneration",
    "qwen2.5-omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3-omni": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


def save_qwen_omni(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a checkpoint of one of the chat models, with tokenizer, template and feature extractor."""
    tokenizer = qwen3_tokens.train_tokenizer(TEXTS, merges=60)
    tokenizer.chat_template = OMNI_TEMPLATE
    placeholder = tokenizer.convert_tokens_to_ids(qwen3_tokens.AUDIO["audio_token"])
    module = getattr(transformers, OMNI_NETWORKS[kind])(_omni_config(kind, len(tokenizer), placeholder))
    randomise(module, seed)
    module.generation_config = qwen3_tokens.generation_config(tokenizer)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mels = 128
    seconds = 30 if kind == "qwen2-audio" else 300
    transformers.WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds).save_pretrained(folder)
    return folder


#: Canary's prompt, as the published template writes it
CANARY_TEMPLATE = """\
{%- for m in messages -%}{%- for c in m.content if c.type == 'text' -%}
{{- '<|startofcontext|><|startoftranscript|><|emo:undefined|><|' + c.source_language + '|><|' -}}
{{- c.target_language + '|>' + ('<|pnc|>' if c.punctuation else '<|nopnc|>') -}}
{{- '<|noitn|><|notimestamp|><|nodiarize|>' -}}
{%- endfor -%}{%- endfor -%}"""
CANARY_TOKENS = ["startofcontext", "startoftranscript", "emo:undefined", "en", "de", "fr", "pnc", "nopnc", "noitn"]
CANARY_TOKENS += ["notimestamp", "nodiarize"]


def save_canary(folder: Path, seed: int = 0) -> Path:
    """Save a Canary checkpoint with 50 thousand weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "<|endoftext|>"}
    pieces = Tokenizer(models.BPE(unk_token=names["unk_token"]))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    pieces.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<|nospeech|>", "<pad>", "<|endoftext|>", *(f"<|{name}|>" for name in CANARY_TOKENS)]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(TEXTS, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **names)
    decoder = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    decoder |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "vocab_size": len(tokenizer)}
    encoder = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    encoder |= {"subsampling_conv_channels": 8, "num_mel_bins": 128, "scale_input": False}
    config = transformers.CanaryConfig(
        encoder_config={"model_type": "parakeet_encoder", **encoder},
        decoder_config=decoder,
        vocab_size=len(tokenizer),
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startofcontext|>"),
        tie_word_embeddings=True,
    )
    module = transformers.CanaryForConditionalGeneration(config)
    randomise(module, seed)
    module.save_pretrained(folder)
    extractor = transformers.ParakeetFeatureExtractor(feature_size=128)
    transformers.CanaryProcessor(extractor, tokenizer, chat_template=CANARY_TEMPLATE).save_pretrained(folder)
    return folder


TEKKEN_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, 24))]
TEKKEN_SPECIAL += ["[AUDIO]", "[BEGIN_AUDIO]", *(f"<SPECIAL_{i}>" for i in range(26, 34)), "[TRANSCRIBE]"]
TEKKEN_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def save_voxtral(folder: Path, seed: int = 0) -> Path:
    """Save a Voxtral checkpoint, with a vocabulary in Mistral's format."""
    import base64
    import json

    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte = {letter: value for value, letter in bytes_to_unicode().items()}
    learned = json.loads(qwen3_tokens.train_tokenizer(TEXTS, merges=60).backend_tokenizer.to_str())["model"]["merges"]
    words = [bytes(byte[letter] for letter in left + right) for left, right in learned]
    tokens = list(dict.fromkeys([bytes([value]) for value in range(256)] + words))
    reserved = 40
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate(tokens)]
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(TEKKEN_SPECIAL)]
    config = {"pattern": TEKKEN_PATTERN, "num_vocab_tokens": len(tokens), "version": "v13"}
    config |= {"default_vocab_size": reserved + len(tokens), "default_num_special_tokens": reserved}
    text = TEXT | {"vocab_size": reserved + len(tokens), "head_dim": 12, "max_position_embeddings": 4096}
    network = transformers.VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", "hidden_size": 32, "intermediate_size": 128,
                      "num_hidden_layers": 2, "num_attention_heads": 2},
        text_config={"model_type": "llama", **text},
        audio_token_id=TEKKEN_SPECIAL.index("[AUDIO]"),
    )  # fmt: skip
    module = transformers.VoxtralForConditionalGeneration(network)
    randomise(module, seed)
    module.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    file = {"config": config, "vocab": vocab, "special_tokens": special}
    (folder / "tekken.json").write_text(json.dumps(file), encoding="utf-8")
    return folder
