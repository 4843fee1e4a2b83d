"""Small random checkpoints made and saved by NeMo itself; needs NeMo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nemo_archives
import torch

TDT = [0, 1, 2, 3, 4]


def write_all(folder: Path) -> dict[str, Path]:
    """Save one checkpoint of each kind and a differently seeded sibling of each; return their paths."""
    from nemo.collections.asr import models
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.set_verbosity(logging.ERROR)
    pieces = folder / "tokenizer"
    pieces.mkdir()
    (pieces / "tokenizer.model").write_bytes(nemo_archives.tokenizer_model())
    _write_vocabulary(pieces)
    kinds = {
        "ctc": (models.EncDecCTCModelBPE, _ctc(pieces)),
        "rnnt": (models.EncDecRNNTBPEModel, _transducer(pieces, [])),
        "tdt": (models.EncDecRNNTBPEModel, _transducer(pieces, TDT)),
        "hainan": (models.EncDecRNNTBPEModel, _transducer(pieces, TDT, masking_prob=0.5)),
        "hybrid": (models.EncDecHybridRNNTCTCBPEModel, _hybrid(pieces)),
    }
    paths = {}
    for kind, (make, config) in kinds.items():
        for seed, name in enumerate((kind, f"{kind}-sibling")):
            torch.manual_seed(seed)
            network = make(OmegaConf.create(config)).eval()
            _enliven(network)
            paths[name] = folder / f"{name}.nemo"
            network.save_to(str(paths[name]))
    return paths


def _write_vocabulary(pieces: Path) -> None:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(pieces / "tokenizer.model"))
    words = [processor.id_to_piece(i) for i in range(1, nemo_archives.PIECES)]
    (pieces / "vocab.txt").write_text("\n".join(words), encoding="utf-8")


def _enliven(network: torch.nn.Module) -> None:
    """Make outputs vary along the audio, the blank among them."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.mul_(1.5)
            if name.startswith("decoder.prediction"):
                weight.mul_(3.0)
            if name.startswith("joint.joint_net") and name.endswith("bias"):
                weight[nemo_archives.PIECES] += 0.7
        for name, statistic in network.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(0.0, 0.1)
            if name.endswith("running_var"):
                statistic.uniform_(0.5, 1.5)


def _base(pieces: Path) -> dict[str, Any]:
    settings = nemo_archives.nemo_config("ctc")
    return {
        "sample_rate": 16000,
        "preprocessor": settings["preprocessor"],
        "encoder": settings["encoder"] | {"d_model": 48, "n_heads": 4, "ff_expansion_factor": 4, "xscaling": True},
        "tokenizer": {"dir": str(pieces), "type": "bpe"},
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def _ctc_head(width: int | None) -> dict[str, Any]:
    target = "nemo.collections.asr.modules.ConvASRDecoder"
    return {"_target_": target, "feat_in": width, "num_classes": -1, "vocabulary": []}


def _ctc(pieces: Path) -> dict[str, Any]:
    return _base(pieces) | {"decoder": _ctc_head(48), "decoding": {"strategy": "greedy_batch"}}


def _transducer(pieces: Path, durations: list[int], **joint: Any) -> dict[str, Any]:
    config = _base(pieces) | {
        "model_defaults": {"enc_hidden": 48, "pred_hidden": 32, "joint_hidden": 32},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 32, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.1},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": 32, "activation": "relu", "dropout": 0.1},
            **joint,
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10, "use_cuda_graph_decoder": False}},
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}},
    }
    if durations:
        config["model_defaults"] |= {"tdt_durations": durations, "num_tdt_durations": len(durations)}
        config["joint"]["num_extra_outputs"] = len(durations)
        config["decoding"] |= {"model_type": "tdt", "durations": durations}
        arguments = {"durations": durations, "sigma": 0.02, "omega": 0.1, "fastemit_lambda": 0.0, "clamp": -1.0}
        config["loss"] = {"loss_name": "tdt", "tdt_kwargs": arguments}
    return config


def _hybrid(pieces: Path) -> dict[str, Any]:
    auxiliary = {
        "ctc_loss_weight": 0.3,
        "use_cer": False,
        "decoder": _ctc_head(None),
        "decoding": {"strategy": "greedy"},
    }
    return _transducer(pieces, TDT) | {"aux_ctc": auxiliary}
