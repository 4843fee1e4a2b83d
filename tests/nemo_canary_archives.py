"""Small `.nemo` archives of Canary made by hand, as NeMo 3.0.0 writes them: tar, YAML, torch weights, SentencePiece.

Kinds: `v1` (a tokenizer per language, the first prompt), `flash` (a tokenizer per language, the second prompt, and an
encoder of another width than the decoder's), `v2` (one tokenizer, the second prompt).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nemo_archives
import sentencepiece
import torch
import transformers
import yaml
from torch import Tensor

from earmark import record_many

OPTIONS = {"name": "m", "device": "cpu", "dtype": "float32", "arithmetic": "float32", "attention": "sdpa"}
REQUESTS = [{"language": "en"}, {"language": "de"}, {"language": "fr", "task": "translate"}]
KINDS = ("v1", "flash", "v2")
LANGUAGES = ("en", "de")
POSITIONS = 40
WIDTHS = {"v1": 32, "flash": 48, "v2": 32}
SPECIAL = (
    "nospeech", "endoftext", "startoftranscript", "pnc", "nopnc", "startofcontext", "emo:undefined", "noitn",
    "notimestamp", "nodiarize", "transcribe", "translate", "en", "de", "fr",
)  # fmt: skip
#: transformers' names to NeMo's, in the order in which they are replaced.
NAMES = (
    ("model.encoder.", "encoder."),
    ("model.decoder.embed_tokens.", "transf_decoder._embedding.token_embedding."),
    ("model.decoder.embedding_layernorm.", "transf_decoder._embedding.layer_norm."),
    ("model.decoder.norm.", "transf_decoder._decoder.final_layer_norm."),
    ("model.decoder.layers.", "transf_decoder._decoder.layers."),
    (".input_layernorm.", ".layer_norm_1."),
    (".post_attention_layernorm.", ".layer_norm_2."),
    (".final_layernorm.", ".layer_norm_3."),
    (".encoder_attn.", ".second_sub_layer."),
    (".mlp.fc1.", ".third_sub_layer.dense_in."),
    (".mlp.fc2.", ".third_sub_layer.dense_out."),
    ("proj_out.", "log_softmax.mlp.layer0."),
)
HEAD_BIASES = ("proj_out.bias", "log_softmax.mlp.layer0.bias")
PAD, END, NEVER = 1, 3, 9.0
FINAL_NORMS = ("decoder.norm.weight", "decoder.final_layer_norm.weight")
ATTENTION = (("q_proj", "query_net"), ("k_proj", "key_net"), ("v_proj", "value_net"), ("o_proj", "out_projection"))


def tokenizer_model(kind: str) -> bytes:
    """Train the SentencePiece model that holds the special tokens: `special`, or `single` with words as well."""
    marks, model = ["<pad>", *(f"<|{name}|>" for name in SPECIAL)], io.BytesIO()
    words = ["the hot one of what had some but this from have they his as with are"] * 40
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words if kind == "single" else marks), model_writer=model, model_type="bpe",
        vocab_size=len(marks) + (46 if kind == "single" else 2), user_defined_symbols=marks, bos_id=-1, eos_id=-1,
        pad_id=-1, unk_id=0, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def tokenizers(kind: str) -> dict[str, bytes]:
    """Return the SentencePiece models of a kind by name, in the order of their ids."""
    if kind == "v2":
        return {"": tokenizer_model("single")}
    return {"spl_tokens": tokenizer_model("special"), **dict.fromkeys(LANGUAGES, nemo_archives.tokenizer_model())}


def piece_count(kind: str) -> int:
    """Return the pieces of all tokenizers of a kind."""
    models = [sentencepiece.SentencePieceProcessor(model_proto=model) for model in tokenizers(kind).values()]
    return sum(model.get_piece_size() for model in models)


def vocabulary(kind: str) -> int:
    """Return the rows of the head: the pieces, rounded up to a multiple of 8."""
    return -(-piece_count(kind) // 8) * 8


def network(kind: str, seed: int = 0) -> Any:
    """Return a random network of transformers, with NeMo's table of positions."""
    width, vocab = WIDTHS[kind], vocabulary(kind)
    encoder = {
        "model_type": "parakeet_encoder", "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 2 * width, "subsampling_conv_channels": 8, "num_mel_bins": 80, "scale_input": False,
    }  # fmt: skip
    decoder = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16,
        "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "vocab_size": vocab,
    }  # fmt: skip
    config = transformers.CanaryConfig(encoder_config=encoder, decoder_config=decoder, vocab_size=vocab)
    module = transformers.CanaryForConditionalGeneration(config)
    if width != 32:
        module.bridge = torch.nn.Linear(width, 32)
    enliven(module, kind, seed)
    module.model.decoder.pos_emb.positional_embedding = position_table() * 32**0.5
    return module.eval()


def enliven(module: torch.nn.Module, kind: str, seed: int) -> None:
    """Give weights at which tokens depend on audio and earlier tokens; neither pad, end nor a row without a piece wins.

    Args:
        module: A network of transformers or of NeMo.
        kind: Its kind.
        seed: Seed of the weights.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.dim() > 1:
                gain = 0.4 if "embed" in name else 4.0 if "mlp" in name or "third_sub_layer" in name else 2.0
                weight.normal_(0.0, gain / weight[0].numel() ** 0.5)
            elif name.endswith(FINAL_NORMS):
                weight.normal_(0.0, 2.0)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.1)
            if name.endswith(HEAD_BIASES):
                weight[[PAD, END, *range(piece_count(kind), len(weight))]] -= NEVER
        for name, statistic in module.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(0.0, 0.1)
            if name.endswith("running_var"):
                statistic.uniform_(0.5, 1.5)


def position_table() -> Tensor:
    """Return sines and cosines in turns (Vaswani et al. 2017, section 3.5) over the root of the width, as in NeMo."""
    angle = torch.arange(POSITIONS)[:, None] / 10_000 ** (torch.arange(0, 32, 2) / 32)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1) / 32**0.5


def nemo_tensors(module: Any) -> dict[str, Tensor]:
    """Return the weights under NeMo's names, its buffers among them."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        target = name
        for own, nemo in NAMES:
            target = target.replace(own, nemo)
        if target.startswith("transf_decoder."):
            target = target.replace(".self_attn.", ".first_sub_layer.")
            for own, nemo in ATTENTION:
                target = target.replace(own, nemo)
        for own, nemo in nemo_archives.NAMES if target.startswith("encoder.") else ():
            target = target.replace(own, nemo)
        tensors[target.replace("bridge.", "encoder_decoder_proj.")] = tensor.clone()
    tensors["transf_decoder._embedding.position_embedding.pos_enc"] = position_table()
    tensors["preprocessor.featurizer.window"] = torch.hann_window(400, periodic=False)
    tensors["preprocessor.featurizer.fb"] = transformers.ParakeetFeatureExtractor().mel_filters[None]
    return tensors


def nemo_config(kind: str) -> dict[str, Any]:
    """Return the settings that matter, as NeMo names them."""
    base, width = nemo_archives.nemo_config("ctc"), WIDTHS[kind]
    collections = "nemo.collections"
    tokenizer: dict[str, Any] = {"dir": None, "type": "bpe", "model_path": "nemo:0_tokenizer.model"}
    if kind != "v2":
        parts = enumerate(tokenizers(kind))
        langs = {name: {"dir": "", "type": "bpe", "model_path": f"nemo:{i}_tokenizer.model"} for i, name in parts}
        tokenizer = {"dir": None, "type": "agg", "langs": langs}
    custom = "CanaryBPETokenizer" if kind == "v2" else "CanaryTokenizer"
    tokenizer["custom_tokenizer"] = {"_target_": f"{collections}.common.tokenizers.canary_tokenizer.{custom}"}
    return {
        "target": f"{collections}.asr.models.aed_multitask_models.EncDecMultiTaskModel",
        "nemo_version": "3.0.0",
        "sample_rate": 16000,
        "prompt_format": "canary" if kind == "v1" else "canary2",
        "model_defaults": {"asr_enc_hidden": width, "lm_enc_hidden": 32, "lm_dec_hidden": 32},
        "tokenizer": tokenizer,
        "preprocessor": base["preprocessor"],
        "encoder": base["encoder"] | {"d_model": width},
        "transf_encoder": {"num_layers": 0},
        "transf_decoder": {
            "_target_": f"{collections}.asr.modules.transformer.get_nemo_transformer",
            "model_name": None, "pretrained": False, "encoder": None, "pre_ln_final_layer_norm": True,
            "config_dict": {
                "max_sequence_length": POSITIONS, "num_token_types": 0, "embedding_dropout": 0.1,
                "learn_positional_encodings": False, "hidden_size": 32,
                "inner_size": 64, "num_layers": 2, "num_attention_heads": 2, "ffn_dropout": 0.1,
                "attn_score_dropout": 0.1, "attn_layer_dropout": 0.1, "hidden_act": "relu", "pre_ln": True,
            },
        },
        "head": {
            "_target_": f"{collections}.asr.parts.submodules.token_classifier.TokenClassifier", "num_layers": 1,
            "activation": "relu", "log_softmax": True, "hidden_size": 32, "dropout": 0.1,
        },
        "decoding": {"strategy": "beam", "beam": {"beam_size": 1, "len_pen": 0.0, "max_generation_delta": 50}},
        "loss": {"_target_": f"{collections}.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss"},
    }  # fmt: skip


def members(kind: str, seed: int = 0) -> dict[str, bytes]:
    """Return the members of an archive by name."""
    weights = io.BytesIO()
    torch.save(nemo_tensors(network(kind, seed)), weights)
    config = yaml.safe_dump(nemo_config(kind), sort_keys=False).encode()
    parts = {f"{i}_tokenizer.model": model for i, model in enumerate(tokenizers(kind).values())}
    return {"model_config.yaml": config, "model_weights.ckpt": weights.getvalue(), **parts}


def write_archive(path: Path, kind: str, seed: int = 0) -> Path:
    """Write a whole archive of a kind."""
    return nemo_archives.pack(path, members(kind, seed))


def ending(model, asked) -> list:
    """Raise the end's bias until one of the transcripts ends in its midst, and return the evidence."""
    model.head().bias.data[model.end_id] += NEVER
    for _ in range(40):
        model.head().bias.data[model.end_id] += 0.2
        evidence = list(record_many(model, asked, batch_size=3, level="sketch"))
        lengths = [len(item.segments[0].ids) for item in evidence if item.segments[0].ids[-1] == model.end_id]
        if any(length > 3 for length in lengths):
            return evidence
    raise AssertionError("no transcript ended")
