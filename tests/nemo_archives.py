"""Small `.nemo` archives made by hand, as NeMo 3.0.0 writes them: tar, YAML, torch weights, SentencePiece."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
import yaml
from torch import Tensor

PIECES = 48
DURATIONS = [0, 1, 2, 3, 4]
TOKENIZER = "0123456789abcdef_tokenizer.model"
LOADING = {"name": "m", "device": "cpu", "dtype": "float32", "arithmetic": "float32", "attention": "sdpa"}

#: transformers' names to NeMo's, in the order in which they are replaced.
NAMES = (
    ("encoder.subsampling.layers.", "encoder.pre_encode.conv."),
    ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
    ("self_attn.q_proj", "self_attn.linear_q"),
    ("self_attn.k_proj", "self_attn.linear_k"),
    ("self_attn.v_proj", "self_attn.linear_v"),
    ("self_attn.o_proj", "self_attn.linear_out"),
    ("self_attn.relative_k_proj", "self_attn.linear_pos"),
    ("self_attn.bias_", "self_attn.pos_bias_"),
    ("conv.norm.", "conv.batch_norm."),
    ("decoder.embedding.", "decoder.prediction.embed."),
    ("decoder.lstm.", "decoder.prediction.dec_rnn.lstm."),
    ("decoder.decoder_projector.", "joint.pred."),
    ("encoder_projector.", "joint.enc."),
    ("joint.head.", "joint.joint_net.2."),
)
TARGETS = {
    "ctc": "ctc_bpe_models.EncDecCTCModelBPE",
    "rnnt": "rnnt_bpe_models.EncDecRNNTBPEModel",
    "tdt": "rnnt_bpe_models.EncDecRNNTBPEModel",
    "hybrid": "hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
}


def tokenizer_model() -> bytes:
    """Train a SentencePiece model on a few words."""
    words = (
        "the", "of", "and", "to", "in", "that", "was", "he", "for", "on", "are", "with", "as", "his", "they", "one",
        "have", "this", "from", "had", "hot", "but", "some", "what",
    )  # fmt: skip
    chance, model = random.Random(0), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(chance.choices(words, k=8)) for _ in range(500)),
        model_writer=model, vocab_size=PIECES, model_type="bpe", bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0,
        minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def networks(kind: str, seed: int = 0) -> dict[str, Any]:
    """Return random networks of transformers by head; a hybrid's two share the encoder's weights."""
    torch.manual_seed(seed)
    encoder = transformers.ParakeetEncoderConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, subsampling_conv_channels=8,
        scale_input=False,
    )  # fmt: skip
    made: dict[str, Any] = {}
    if kind in ("ctc", "hybrid"):
        config = transformers.ParakeetCTCConfig(vocab_size=PIECES + 1, pad_token_id=PIECES, encoder_config=encoder)
        made["ctc"] = transformers.ParakeetForCTC(config)
    if kind != "ctc":
        fields = {
            "vocab_size": PIECES + 1, "pad_token_id": PIECES, "blank_token_id": PIECES, "decoder_hidden_size": 24,
            "num_decoder_layers": 2, "encoder_config": encoder,
        }  # fmt: skip
        rnnt = kind == "rnnt"
        config = transformers.ParakeetRNNTConfig(**fields) if rnnt else transformers.ParakeetTDTConfig(**fields)
        made["transducer"] = (transformers.ParakeetForRNNT if rnnt else transformers.ParakeetForTDT)(config)
    for network in made.values():
        _enliven(network)
    if kind == "hybrid":
        made["ctc"].encoder.load_state_dict(made["transducer"].encoder.state_dict())
    return {head: network.eval() for head, network in made.items()}


def _enliven(network: Any) -> None:
    """Give weights a size that keeps signals alive, the blank an advantage, and the blank's embedding zeros."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                gain = 4.0 if "head" in name else 1.5
                weight.copy_(torch.randn_like(weight) * gain / weight[0].numel() ** 0.5)
        if hasattr(network, "ctc_head"):
            network.ctc_head.bias[-1] += 2.0
        else:
            network.decoder.embedding.weight.mul_(30).index_fill_(0, torch.tensor([PIECES]), 0.0)
            network.joint.head.bias[PIECES] += 3.0


def nemo_tensors(made: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights under NeMo's names, its feature buffers among them."""
    head = "ctc_decoder" if "transducer" in made else "decoder"
    tensors: dict[str, Tensor] = {}
    for network in made.values():
        for name, tensor in network.state_dict().items():
            target = name
            for own, nemo in (*NAMES, ("ctc_head.", f"{head}.decoder_layers.0.")):
                target = target.replace(own, nemo)
            tensors[target] = tensor.clone()
    tensors["preprocessor.featurizer.window"] = torch.hann_window(400, periodic=False)
    tensors["preprocessor.featurizer.fb"] = transformers.ParakeetFeatureExtractor().mel_filters[None]
    return tensors


def nemo_config(kind: str) -> dict[str, Any]:
    """Return the settings that matter, as NeMo names them."""
    config: dict[str, Any] = {
        "target": f"nemo.collections.asr.models.{TARGETS[kind]}",
        "nemo_version": "3.0.0",
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
            "window": "hann", "features": 80, "n_fft": 512, "log": True, "frame_splicing": 1, "dither": 1e-5,
            "pad_to": 0, "pad_value": 0.0,
        },
        "tokenizer": {"dir": "/somewhere", "type": "bpe", "model_path": f"nemo:{TOKENIZER}"},
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 80, "feat_out": -1, "n_layers": 2,
            "d_model": 32, "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 8,
            "ff_expansion_factor": 2, "self_attention_model": "rel_pos", "n_heads": 2, "att_context_size": [-1, -1],
            "xscaling": False, "untie_biases": True, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
        },
        "decoder": {"_target_": "nemo.collections.asr.modules.RNNTDecoder", "blank_as_pad": True,
                    "prednet": {"pred_hidden": 24, "pred_rnn_layers": 2, "dropout": 0.1}},
        "model_defaults": {"enc_hidden": 32, "pred_hidden": 24, "joint_hidden": 24, "tdt_durations": DURATIONS},
        "joint": {"_target_": "nemo.collections.asr.modules.RNNTJoint",
                  "jointnet": {"joint_hidden": "${model.model_defaults.joint_hidden}", "activation": "relu",
                               "dropout": 0.1}},
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
    }  # fmt: skip
    if kind in ("tdt", "hybrid"):
        config["joint"]["num_extra_outputs"] = len(DURATIONS)
        config["decoding"]["durations"] = "${model.model_defaults.tdt_durations}"
    return config


def members(kind: str, seed: int = 0) -> dict[str, bytes]:
    """Return the members of an archive by name."""
    weights = io.BytesIO()
    torch.save(nemo_tensors(networks(kind, seed)), weights)
    config = yaml.safe_dump(nemo_config(kind)).encode()
    return {"model_config.yaml": config, "model_weights.ckpt": weights.getvalue(), TOKENIZER: tokenizer_model()}


def pack(path: Path, parts: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write an archive."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in parts.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def repack(folder: Path, parts: Mapping[str, bytes], config: Mapping[str, Any] | bytes) -> Path:
    """Write an archive whose settings are replaced, by others or by any bytes."""
    data = config if isinstance(config, bytes) else yaml.safe_dump(config, sort_keys=False).encode()
    return pack(folder / "m.nemo", {**parts, "model_config.yaml": data})


def write_archive(path: Path, kind: str, seed: int = 0) -> Path:
    """Write a whole archive of a kind: `ctc`, `rnnt`, `tdt`, `hybrid`."""
    return pack(path, members(kind, seed))
