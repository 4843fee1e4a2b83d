"""Small random Canary checkpoints made and saved by NeMo itself; needs NeMo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nemo_canary_archives as canary
import sentencepiece


def write_all(folder: Path) -> dict[str, Path]:
    """Save one checkpoint of each kind and a differently seeded sibling of each; return their paths."""
    from nemo.collections.asr.models import EncDecMultiTaskModel
    from nemo.utils import logging
    from omegaconf import OmegaConf

    logging.set_verbosity(logging.ERROR)
    paths = {}
    for kind in canary.KINDS:
        config = canary.nemo_config(kind) | {"tokenizer": _tokenizer(folder / f"tokenizer-{kind}", kind)}
        for seed, name in enumerate((kind, f"{kind}-sibling"), start=2):
            network = EncDecMultiTaskModel(OmegaConf.create(config)).eval()
            canary.enliven(network, kind, seed)
            paths[name] = folder / f"{name}.nemo"
            network.save_to(str(paths[name]))
    return paths


def _tokenizer(folder: Path, kind: str) -> dict[str, Any]:
    """Write the tokenizers where NeMo looks for them, and return its settings."""
    for name, model in canary.tokenizers(kind).items():
        (folder / name).mkdir(parents=True)
        (folder / name / "tokenizer.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        words = [processor.id_to_piece(i) for i in range(1, processor.get_piece_size())]
        (folder / name / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    settings = {key: canary.nemo_config(kind)["tokenizer"][key] for key in ("type", "custom_tokenizer")}
    if kind == "v2":
        return settings | {"dir": str(folder)}
    return settings | {"langs": {name: {"dir": str(folder / name), "type": "bpe"} for name in canary.tokenizers(kind)}}
