"""SALMONN: Whisper and BEATs, a Q-Former over windows of a third of a second, Vicuna with LoRA, asked to transcribe."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _audio_llm as llm
from earmark.models import _torch_file
from earmark.models import _transformers as shared
from earmark.records.request import Request

if TYPE_CHECKING:
    import torch

INSTRUCTIONS = {
    None: "Recognize the speech and give me the transcription.",
    "en": "Recognize the speech and give me the transcription.",
    "de": "Hören Sie sich die Rede an und schreiben Sie ihren Inhalt auf.",
    "zh": "请将语音中的内容写下来。",
}
"""What the published test prompts ask for, by language."""
BEFORE, AFTER = "USER: <Speech>", "</Speech> {}\nASSISTANT:"
LEAST_SAMPLES = 16_000
"""The published code pads shorter audio with zeros before both encoders."""
EMBEDDINGS_PER_S = 3.0


class Parts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config.json of a checkpoint; names and defaults are those of the published `decode_config.yaml`.

    Attributes:
        model_type: Always `salmonn`.
        whisper_path: Folder of Whisper, in the transformers format.
        beats_path: File of BEATs.
        llama_path: Folder of Vicuna, in the transformers format, with its tokenizer.
        ckpt: File of SALMONN's own weights.
        lora_alpha: Scale of the LoRA times its rank.
        second_per_window: Length of the Q-Former's windows.
        second_stride: From one window to the next.
        num_attention_heads: Heads of the Q-Former; those of BERT base.
    """

    model_type: Literal["salmonn"]
    whisper_path: str
    beats_path: str
    llama_path: str
    ckpt: str
    lora_alpha: float = 32.0
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    num_attention_heads: Annotated[int, msgspec.Meta(ge=1)] = 12


class SalmonnLoader:
    """Opens a folder whose config.json names the four published parts, which lie in it."""

    name: ClassVar[str] = "salmonn"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "SALMONN 7B, 13B (Whisper, BEATs, Vicuna with LoRA)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names SALMONN."""
        return bool(read_config(folder).get("model_type") == "salmonn")

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> SalmonnModel:
        """Load the four parts and put them together."""
        import transformers

        parts = read_parts(folder)
        whisper, llama = (part(folder, place) for place in (parts.whisper_path, parts.llama_path))
        digests = [weights_digest(whisper), weights_digest(llama)]
        with shared.opening(folder, "SALMONN"):
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(whisper, local_files_only=True)
            tokenizer = transformers.LlamaTokenizer.from_pretrained(llama, local_files_only=True)
            network, own = _assemble(folder, parts, attention)
        if tokenizer.unk_token_id is None or len(tokenizer) > network.llama_model.config.vocab_size:
            raise ModelError(f"{llama}: the tokenizer's {len(tokenizer)} tokens are not those of the language model")
        positions = int(network.llama_model.config.max_position_embeddings)
        info = shared.describe_model(
            name=name,
            weights=hashlib.sha256("\0".join(["earmark/salmonn/1", *digests, *own]).encode()).hexdigest(),
            family=self.family,
            architecture=self.name,
            features=describe(extractor),
            vocab_size=int(network.llama_model.config.vocab_size),
            window_samples=llm.window_samples(positions, EMBEDDINGS_PER_S, int(extractor.chunk_length)),
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        network = shared.rounded(network, device=device, dtype=dtype, arithmetic=arithmetic)
        network.llama_model.generation_config = transformers.GenerationConfig()
        return SalmonnModel(
            info,
            network,
            SimpleNamespace(tokenizer=tokenizer, feature_extractor=extractor),
            placeholder=int(tokenizer.unk_token_id),
            stop_ids=(int(tokenizer.eos_token_id),),
            positions=positions,
        )


def read_parts(folder: Path) -> Parts:
    """Return config.json.

    Raises:
        ModelError: It names other things than the parts.
    """
    try:
        return msgspec.convert(read_config(folder), Parts)
    except msgspec.ValidationError as error:
        raise ModelError(f"{folder / 'config.json'} does not describe SALMONN: {error}") from error


def part(folder: Path, place: str) -> Path:
    """Return where a part of the checkpoint lies.

    Args:
        folder: The checkpoint.
        place: Where config.json says, relative to the folder.

    Raises:
        ModelError: Outside of the folder, or nowhere.
    """
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ModelError(f"{folder / 'config.json'} names {place[:80]!r}, which lies outside of the folder")
    if not (folder / path).exists():
        raise ModelError(f"{folder} has no {place[:80]!r}, which its config.json names")
    return folder / path


def _assemble(folder: Path, parts: Parts, attention: str) -> tuple[Any, list[str]]:
    """Return the network, and the digests of the two parts that are files of torch."""
    import transformers

    from earmark.models._beats import read_beats
    from earmark.models._salmonn_network import SalmonnNetwork, fill, qformer_config, split_weights

    beats, used = read_beats(_read(folder, parts.beats_path), parts.beats_path)
    found = _read(folder, parts.ckpt)
    if not isinstance(found, dict) or "model" not in found:
        raise ModelError(f"{folder / parts.ckpt} is no checkpoint of SALMONN: expected `model` in it")
    state = _torch_file.named_tensors(found["model"], parts.ckpt)
    own, lora = split_weights(state, parts.ckpt)
    config = qformer_config(own, parts.num_attention_heads, parts.ckpt)
    config._attn_implementation = attention  # noqa: SLF001 - the library's own switch
    network = SalmonnNetwork(
        shared.read_network(transformers.WhisperModel, folder / parts.whisper_path, attention=attention).encoder,
        beats,
        transformers.Blip2QFormerModel(config),
        shared.read_network(transformers.LlamaForCausalLM, folder / parts.llama_path, attention=attention),
        queries=_queries(own, parts.ckpt),
        window_s=parts.second_per_window,
        stride_s=parts.second_stride,
    )
    fill(network, own, lora, alpha=parts.lora_alpha, what=parts.ckpt)
    return network, [_torch_file.tensors_digest("beats", used), _torch_file.tensors_digest("salmonn", state)]


def _read(folder: Path, place: str) -> Any:
    with part(folder, place).open("rb") as file:
        return _torch_file.read_torch(file, str(folder / place))


def _queries(own: dict[str, torch.Tensor], what: str) -> int:
    tokens = own.get("speech_query_tokens")
    if tokens is None or tokens.ndim != 3 or len(tokens) != 1:
        raise ModelError(f"{what} has no speech_query_tokens of shape (1, queries, width)")
    return int(tokens.shape[1])


class SalmonnModel(llm.AudioLanguageModel):
    """One SALMONN checkpoint; the arguments are those of `AudioLanguageModel`.

    Its claim states the features of Whisper; those of BEATs have no settings.
    """

    @property
    def _writer(self) -> Any:
        return self.module.llama_model

    @property
    def _decoder(self) -> Any:
        return self.module.llama_model.model

    # text

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for; ids beyond the tokenizer's stand for nothing."""
        table = [b""] * self.info.vocab_size
        for piece, i in self.tokenizer.get_vocab().items():
            byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
            table[i] = bytes.fromhex(piece[3:5]) if byte else piece.replace("▁", " ").encode()
        return tuple(table)

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the published turn of a user: the audio between its marks, then what is asked.

        The texts before and behind the audio are tokenised apart, as in the published code. Of the tokenizer's tokens,
        the unknown one stands for the audio: in Llama's tokenizer, which falls back to bytes, no text gives it.
        """
        self._refuse(request)
        if language not in INSTRUCTIONS and not request.prompt:
            known = ", ".join(code for code in INSTRUCTIONS if code)
            raise UsageError(f"{self.info.name} has no language {language!r}; it has: {known}; or give a prompt")
        asked = request.prompt or INSTRUCTIONS[language]
        before, after = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (BEFORE, AFTER.format(asked))
        )
        return (int(self.tokenizer.bos_token_id), *before, self._placeholder, *after)

    # network

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of Whisper's encoder."""
        return list(self.module.speech_encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the positions of Whisper's window that the audio reaches."""
        whole = int(self.processor.feature_extractor.n_samples)
        positions = int(self.module.positions)
        return max(1, min(positions, -(-samples * positions // whole)))

    def _audio_tokens(self, samples: int) -> int:
        del samples  # every piece is padded to Whisper's window
        return int(self.module.audio_tokens)

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        import torch

        from earmark.models import _beats

        padded = [np.pad(piece, (0, max(0, LEAST_SAMPLES - len(piece)))) for piece in samples]
        extractor, where = self.processor.feature_extractor, {"device": self.module.device, "dtype": self.module.dtype}
        made = extractor(shared.waveforms(padded), sampling_rate=llm.SAMPLE_RATE, return_tensors="pt").input_features
        banks = [torch.as_tensor(_beats.features(piece)).to(**where) for piece in padded]
        return list(self.module.embed(made.to(**where), banks))
