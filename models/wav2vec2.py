"""wav2vec 2.0 and its kin with a CTC head: Wav2Vec2, HuBERT, WavLM, Wav2Vec2-BERT, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.checkpoint import read_config, weights_digest
from earmark.features import FeatureParameters, describe, from_mel_filters
from earmark.models import _transformers as shared
from earmark.protocols import ModelInfo

if TYPE_CHECKING:
    import torch

WINDOW_SAMPLES = 40 * 16_000
"""Longest piece at once: attention costs memory in proportion to its square, and the checkpoints take any length."""
CLASSES = {
    "wav2vec2": "Wav2Vec2ForCTC",
    "hubert": "HubertForCTC",
    "wavlm": "WavLMForCTC",
    "wav2vec2-bert": "Wav2Vec2BertForCTC",
}
TRAINING_ONLY = ("masked_spec_embed",)
"""Weights that published checkpoints may lack."""
BERT_WINDOW, BERT_HOP = 400, 160
"""Samples of the window and the hop of Wav2Vec2-BERT's filter bank, fixed in the code of its extractor."""


class Wav2Vec2Loader:
    """Opens fine-tuned checkpoints with a CTC head from a folder in the transformers format."""

    name: ClassVar[str] = "wav2vec2"
    family: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "Wav2Vec2, HuBERT, WavLM, Wav2Vec2-BERT with a CTC head (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names one of the architectures."""
        return read_config(folder).get("model_type") in CLASSES

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> Wav2Vec2Model:
        """Load network, feature extractor and tokenizer; of a processor with a language model, these two alone."""
        import transformers

        model_type = read_config(folder)["model_type"]
        kind = getattr(transformers, CLASSES[model_type])
        bert = model_type == "wav2vec2-bert"
        extractors = transformers.SeamlessM4TFeatureExtractor if bert else transformers.Wav2Vec2FeatureExtractor
        kernel = attention if kind._supports_sdpa else "eager"  # noqa: SLF001 - the library's own switch
        digest = weights_digest(folder)
        with shared.opening(folder, kind.__name__):
            module = shared.read_network(kind, folder, attention=kernel, unused=TRAINING_ONLY)
            extractor = extractors.from_pretrained(folder, local_files_only=True)
            tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=self.name,
            features=_describe_bert(extractor) if bert else describe(extractor),
            vocab_size=int(module.config.vocab_size),
            window_samples=WINDOW_SAMPLES,
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=kernel,
        )
        network = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        return Wav2Vec2Model(info, network, extractor, tokenizer)


def _describe_bert(extractor: Any) -> FeatureParameters:
    return from_mel_filters(
        extractor.mel_filters,
        n_fft=512,
        window_length=BERT_WINDOW,
        hop=BERT_HOP,
        n_mels=int(extractor.num_mel_bins),
        window="povey",
        preemphasis=0.97,
        mel_scale="kaldi",
        norm="none",
        log_floor=1.192092955078125e-07,
        normalisation="zero-mean-unit-variance-per-band",
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after the encoder: states (batch, frames, width), and the frames of each row without padding."""

    states: torch.Tensor
    lengths: list[int]


class Wav2Vec2Model(shared.TransformersModel):
    """One checkpoint behind the interface of the ctc family.

    Args:
        info: Facts about it.
        module: The network.
        extractor: Its feature extractor.
        tokenizer: Its `Wav2Vec2CTCTokenizer`.
    """

    def __init__(self, info: ModelInfo, module: Any, extractor: Any, tokenizer: Any) -> None:
        """Keep the parts."""
        super().__init__(info, module)
        self.extractor, self.tokenizer = extractor, tokenizer

    @cached_property
    def alone(self) -> bool:
        """Whether padding changes the numbers: normalisation over the whole piece sees it, and takes no mask."""
        return getattr(self.module.config, "feat_extract_norm", "layer") == "group"

    @cached_property
    def blank_id(self) -> int:
        """The blank, which transformers calls padding."""
        return int(self.module.config.pad_token_id)

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of a transcript; repeats are its own, so none is joined."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, group_tokens=False))

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id: the delimiter ends one."""
        special = set(self.tokenizer.all_special_ids)
        delimiter = self.tokenizer.convert_tokens_to_ids(self.tokenizer.word_delimiter_token)
        index, word, open_ = [], -1, False
        for i in ids:
            inside = i not in special and i != delimiter
            word += inside and not open_
            open_ = inside or (open_ and i != delimiter)
            index.append(word if inside else -1)
        return index

    # network

    @property
    def _network(self) -> Any:
        return getattr(self.module, self.module.base_model_prefix)

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the transformer."""
        return list(self._network.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the frames of a piece, counted as the network itself counts them."""
        import torch

        steps = samples
        if self.info.features.n_mels:
            steps = (1 + (samples - BERT_WINDOW) // BERT_HOP) // self.extractor.stride
        return int(self.module._get_feat_extract_output_lengths(torch.tensor(steps)))  # noqa: SLF001

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked; `alone` models are given one piece at a time."""
        features = self.extractor(
            shared.waveforms(samples),
            sampling_rate=16_000,
            padding=True,
            return_attention_mask=not self.alone,
            return_tensors="pt",
        ).to(self.module.device)
        name = self.extractor.model_input_names[0]
        features[name] = features[name].to(self.module.dtype)
        states = self._network(**features).last_hidden_state
        return Encoded(states, [self.encoder_positions(len(piece)) for piece in samples])

    def lengths(self, encoded: Encoded) -> list[int]:
        """Return the frames of each row."""
        return encoded.lengths

    def logits(self, encoded: Encoded) -> torch.Tensor:
        """Return logits (batch, frames, vocab)."""
        logits: torch.Tensor = self.module.lm_head(encoded.states)
        return logits
