# ruff: noqa: S106 - "<unk>" and "|" are tokens of a vocabulary, no passwords
"""Small random checkpoints of the real classes, saved with real processors in the real formats."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LETTERS = "▁'abcdefghijklmnopqrstuvwxyz"
MERGES = [("t", "h"), ("th", "e"), ("▁", "the"), ("i", "n"), ("▁", "a"), ("e", "r"), ("o", "n"), ("▁", "s")]
DURATIONS = [0, 1, 2, 3, 4]


def _pieces() -> Tokenizer:
    words = ["<unk>", *LETTERS, *("".join(pair) for pair in MERGES)]
    pieces = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces.decoder = decoders.Metaspace(prepend_scheme="always")
    return pieces


def _encoder() -> transformers.ParakeetEncoderConfig:
    return transformers.ParakeetEncoderConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, subsampling_conv_channels=8
    )


def parakeet(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a random Parakeet checkpoint of a kind, `ctc`, `rnnt` or `tdt`, that writes something of everything."""
    tokenizer = transformers.ParakeetTokenizer(tokenizer_object=_pieces(), unk_token="<unk>", pad_token="<pad>")
    blank = "<pad>"
    if kind != "ctc":
        blank = "<blank>"
        tokenizer.add_special_tokens({"additional_special_tokens": [blank]})
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "encoder_config": _encoder()}
    if kind != "ctc":
        ids |= {"blank_token_id": len(tokenizer) - 1, "decoder_hidden_size": 24, "num_decoder_layers": 2}
    if kind == "tdt":
        ids["durations"] = DURATIONS
    config = getattr(transformers, f"Parakeet{kind.upper()}Config")(**ids)
    torch.manual_seed(seed)
    module = getattr(transformers, f"ParakeetFor{kind.upper()}")(config)
    _randomise(module)
    with torch.no_grad():
        if kind == "ctc":
            module.ctc_head.bias[-1] += 2.0
        else:
            module.joint.head.bias[len(tokenizer) - 1] += {"rnnt": 6.0, "tdt": 2.0}[kind]
    if kind != "ctc":
        module.generation_config = transformers.GenerationConfig(
            decoder_start_token_id=len(tokenizer) - 1, pad_token_id=tokenizer.pad_token_id
        )
    module.save_pretrained(folder)
    processor = transformers.ParakeetProcessor(
        transformers.ParakeetFeatureExtractor(), tokenizer, blank_token=blank, decoder_type=kind
    )
    processor.save_pretrained(folder)
    return folder


def wav2vec2(folder: Path, kind: str, seed: int = 0, norm: str = "layer") -> Path:
    """Save a random checkpoint with a CTC head: `wav2vec2`, `hubert`, `wavlm` or `wav2vec2-bert`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS[1:]]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")
    sizes = {
        "vocab_size": len(words), "pad_token_id": 0, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64,
    }  # fmt: skip
    names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "wav2vec2-bert": "Wav2Vec2Bert"}
    if kind == "wav2vec2-bert":
        extractor = transformers.SeamlessM4TFeatureExtractor(padding_value=1)
        sizes |= {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 32}
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
        sizes |= {
            "conv_dim": [16] * 7, "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer",
            "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        }  # fmt: skip
    torch.manual_seed(seed)
    module = getattr(transformers, f"{names[kind]}ForCTC")(getattr(transformers, f"{names[kind]}Config")(**sizes))
    _randomise(module)
    with torch.no_grad():
        module.lm_head.bias[1:4] = -100.0  # a transcript without special tokens, which the library would write out
    module.save_pretrained(folder)
    extractor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _randomise(module: torch.nn.Module) -> None:
    """Give weights a size that keeps signals alive, so that outputs vary along the audio."""
    for name, weight in module.named_parameters():
        with torch.no_grad():
            if weight.dim() > 1:
                gain = 4.0 if "head" in name else 1.5
                gain = 3.0 * math.sqrt(weight[0].numel()) if "embedding" in name else gain
                weight.copy_(torch.randn_like(weight) * gain / math.sqrt(weight[0].numel()))
            elif name.endswith("bias"):
                weight.copy_(torch.randn_like(weight) * 0.1)
