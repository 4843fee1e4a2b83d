"""Qwen3-ASR's tokenizer, processor and configuration with a small vocabulary, in the real format."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen3ASRConfig,
    Qwen3ASREncoderConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRProcessor,
    Qwen3Config,
)

MERGES = 200
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
AUDIO = {"audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>", "audio_token": "<|audio_pad|>"}
MARKER = "<asr_text>"
CHAT = ("system", "user", "assistant", "language English", "language None")
"""What every chat says, learned as text like everything else, and often enough to become single tokens."""

#: what the published template writes: the system's text, one audio per audio content, the assistant's turn as it is
CHAT_TEMPLATE = """\
{%- macro text(m) -%}
{%- if m.content is string -%}{{- m.content -}}{%- else -%}
{%- for c in m.content if c.type == 'text' -%}{{- c.text -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- '<|im_start|>system\\n' -}}
{%- for m in messages if m.role == 'system' -%}{{- text(m) -}}{%- endfor -%}
{{- '<|im_end|>\\n<|im_start|>user\\n' -}}
{%- for m in messages if m.content is not string -%}
{%- for c in m.content if c.type == 'audio' -%}{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}{%- endfor -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- for m in messages if m.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' + text(m) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def train_tokenizer(texts: list[str], merges: int = MERGES) -> Qwen2Tokenizer:
    """Learn the merges on training texts; ids are bytes, merged pieces, then control tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([*texts, *CHAT * len(texts), *(f" {text}" for text in texts)], trainer)
    learned = [(left, right) for left, right in json.loads(bpe.to_str())["model"]["merges"]]
    vocab = {token: index for index, token in enumerate(alphabet)}
    for left, right in learned:
        vocab.setdefault(left + right, len(vocab))
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=learned,
        unk_token=None,
        eos_token=END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=AUDIO,
    )
    tokenizer.add_tokens([AddedToken(START, special=True, normalized=False)], special_tokens=True)
    # in the published checkpoints the marker is an added token, but not a special one
    tokenizer.add_tokens([AddedToken(MARKER, special=False, normalized=False)])
    return tokenizer


def make_processor(tokenizer: Qwen2Tokenizer, mels: int = 128) -> Qwen3ASRProcessor:
    """The tokenizer with the feature extractor and the chat template."""
    return Qwen3ASRProcessor(
        feature_extractor=Qwen3ASRFeatureExtractor(feature_size=mels), tokenizer=tokenizer, chat_template=CHAT_TEMPLATE
    )


def make_config(tokenizer: Qwen2Tokenizer, *, audio: dict[str, int], text: dict[str, int]) -> Qwen3ASRConfig:
    """The configuration that fits a tokenizer; sizes as `Qwen3ASREncoderConfig` and `Qwen3Config` name them."""
    stops = tokenizer.convert_tokens_to_ids([END_OF_TEXT, END])
    words = Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **text)
    return Qwen3ASRConfig(
        audio_config=Qwen3ASREncoderConfig(output_dim=words.hidden_size, **audio).to_dict(),
        text_config=words.to_dict(),
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO["audio_token"]),
        timestamp_token_id=stops[0],
        pad_token_id=stops[1],
        eos_token_id=stops,
    )


def generation_config(tokenizer: Qwen2Tokenizer) -> GenerationConfig:
    """Greedy decoding that stops at either end token, as the published checkpoints have it."""
    stops = tokenizer.convert_tokens_to_ids([END_OF_TEXT, END])
    return GenerationConfig(eos_token_id=stops, pad_token_id=stops[1], do_sample=False, max_new_tokens=512)


def chat_ids(tokenizer: Qwen2Tokenizer, text: str, context: str = "") -> tuple[list[int], list[int], int]:
    """Ids of one training example: before the audio, after it, and how many of those are the model's own answer.

    The answer names the language and is then the transcript and the end token; without words the language is None,
    as in the published checkpoints.
    """
    before = f"{START}system\n{context}{END}\n{START}user\n{AUDIO['audio_bos_token']}"
    after = f"{AUDIO['audio_eos_token']}{END}\n{START}assistant\n"
    answer = f"language {'English' if text else 'None'}{MARKER}{text}{END}"
    parts = [list(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after, answer)]
    return parts[0], parts[1] + parts[2], len(parts[2])
