"""Canary in NeMo's `.nemo` format: FastConformer encoder, Transformer decoder and multi-task prompt, by two engines.

By default the weights are put into transformers' Canary, which is the same network, so NeMo need not be installed.
`engine="nemo"` runs NeMo itself, greedily.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _transformers as shared
from earmark.models._canary_parts import WINDOW_SAMPLES, Canary, CanaryInTransformers
from earmark.models._nemo_archive import find_archive, read_archive, read_config, tensors_digest
from earmark.models._nemo_canary_text import text_of
from earmark.models._nemo_canary_weights import TARGET, canary_network, check_head, is_canary
from earmark.models._nemo_settings import extractor_of

Engine = Literal["transformers", "nemo"]
"""What runs the network."""


class NemoCanaryLoader:
    """Opens `.nemo` files of NeMo's `EncDecMultiTaskModel`."""

    name: ClassVar[str] = "nemo-canary"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "NeMo's Canary models (.nemo)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether the archive names NeMo's encoder-decoder."""
        path = find_archive(folder)
        return path is not None and is_canary(read_config(path))

    def load(
        self,
        folder: Path,
        *,
        name: str,
        device: str,
        dtype: str,
        arithmetic: str,
        attention: str,
        engine: Engine = "transformers",
    ) -> Canary:
        """Load network, features and tokenizer.

        Raises:
            ModelError: The archive is damaged, or of another kind.
            UsageError: The engine is unknown.
        """
        if engine not in ("transformers", "nemo"):
            raise UsageError(f"engine {engine!r}; known: transformers, nemo")
        options = {"name": name, "device": device, "dtype": dtype, "arithmetic": arithmetic, "attention": attention}
        path = find_archive(folder)
        if path is None:
            raise ModelError(f"{folder} is no .nemo file, nor a folder with one and no config.json")
        archive = read_archive(path)
        if not is_canary(archive.config):
            raise ModelError(f"{path} is a {str(archive.config.get('target'))[:120]!r}; expected NeMo's {TARGET}")
        text, extractor, vocab = text_of(archive), extractor_of(archive), check_head(archive)
        if vocab != -(-len(text.pieces) // 8) * 8:  # NeMo rounds up to a multiple of 8
            raise ModelError(f"{path} has a tokenizer of {len(text.pieces)} pieces; the network has {vocab}")
        info = shared.describe_model(
            weights=tensors_digest(archive.tensors),
            family=self.family,
            architecture=self.name,
            features=describe(extractor),
            vocab_size=vocab,
            window_samples=WINDOW_SAMPLES,
            **options,
        )
        if engine == "nemo":
            from earmark.models._nemo_canary_engine import load_canary_with_nemo

            return load_canary_with_nemo(info, archive, text, options)
        module = canary_network(archive, attention, end_id=text.end_id)
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        positions = int(module.config.decoder_config.max_position_embeddings)
        return CanaryInTransformers(info, module, extractor, text, positions=positions)
