"""`.nemo` checkpoints of NeMo: Parakeet and its kin, CTC, RNN-T, TDT and hybrids, by two engines.

By default the weights are put into transformers' Parakeet, which is the same network, so NeMo need not be installed.
`engine="nemo"` runs NeMo itself, which also reads encoders that transformers does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _transformers as shared
from earmark.models._nemo_archive import Archive, find_archive, read_archive, read_config, tensors_digest
from earmark.models._nemo_settings import extractor_of, shown
from earmark.models._nemo_weights import Head, heads, max_symbols_of, parakeet_network
from earmark.models._parakeet_parts import WINDOW_SAMPLES, Parakeet, ParakeetCtc, ParakeetTransducer
from earmark.protocols import ModelInfo, Strategy

Engine = Literal["transformers", "nemo"]
"""What runs the network."""


class SentencePieceText:
    """The words of a SentencePiece model.

    Args:
        model: The serialised model.
    """

    def __init__(self, model: bytes) -> None:
        """Read the model."""
        import sentencepiece

        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of a transcript."""
        return str(self.pieces.decode(list(ids)))

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text."""
        return tuple(self.pieces.encode(text))

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        return shared.word_index([self.pieces.id_to_piece(i) for i in ids], [True] * len(ids))


class _NemoLoader:
    """Opens the head of a `.nemo` file that its class names."""

    name: ClassVar[str]
    family: ClassVar[str]
    head: ClassVar[Head]

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
        strategy: Strategy = "ar",
    ) -> Parakeet:
        """Load network, features and tokenizer.

        Raises:
            ModelError: The archive is damaged, or of another kind.
            UsageError: The engine is unknown, or a decoding of HAINAN is asked for that no engine has.
        """
        if strategy != "ar":
            raise UsageError(
                f"strategy {strategy!r}; neither NeMo 3.0.0 nor transformers decodes HAINAN without its prediction "
                "network (nar) or in two passes (sar), so there is nothing to verify it with: use 'ar'"
            )
        options = {"name": name, "device": device, "dtype": dtype, "arithmetic": arithmetic, "attention": attention}
        path = find_archive(folder)
        if path is None:
            raise ModelError(f"{folder} is no .nemo file, nor a folder with one and no config.json")
        archive = read_archive(path)
        if self.head not in heads(archive.config):
            raise ModelError(f"{path} is a {shown(archive.config.get('target'))}, which has no {self.head} head")
        if engine == "nemo":
            from earmark.models._nemo_engine import load_with_nemo

            return load_with_nemo(_info(archive, self, options), archive, _text(archive), options)
        if engine != "transformers":
            raise UsageError(f"engine {engine!r}; known: transformers, nemo")
        return _in_transformers(archive, self, options)


class NemoCtcLoader(_NemoLoader):
    """Opens `.nemo` files of CTC models, and the CTC head of hybrids when it is called directly."""

    name: ClassVar[str] = "nemo-ctc"
    family: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "NeMo's CTC models, and the CTC head of hybrids (.nemo)"
    head: ClassVar[Head] = "ctc"

    def recognises(self, folder: Path) -> bool:
        """Tell whether the archive names a CTC model."""
        path = find_archive(folder)
        return path is not None and heads(read_config(path))[:1] == ("ctc",)


class NemoTransducerLoader(_NemoLoader):
    """Opens `.nemo` files of RNN-T and TDT models and of hybrids."""

    name: ClassVar[str] = "nemo-transducer"
    family: ClassVar[str] = "transducer"
    summary: ClassVar[str] = "NeMo's RNN-T and TDT models and hybrids (.nemo)"
    head: ClassVar[Head] = "transducer"

    def recognises(self, folder: Path) -> bool:
        """Tell whether the archive names a transducer; damaged ones count too, so that `load` says what is wrong."""
        path = find_archive(folder)
        try:
            return path is not None and heads(read_config(path))[:1] == ("transducer",)
        except ModelError:
            return True


def _in_transformers(archive: Archive, loader: _NemoLoader, options: dict[str, str]) -> Parakeet:
    """Put the weights into transformers' Parakeet."""
    module = parakeet_network(archive, loader.head, options["attention"])
    network = shared.rounded(module, **{key: options[key] for key in ("device", "dtype", "arithmetic")})
    info, text, extractor = _info(archive, loader, options), _text(archive), extractor_of(archive)
    if info.vocab_size != module.config.vocab_size:
        found = f"{archive.path} has a tokenizer of {info.vocab_size - 1} pieces"
        raise ModelError(f"{found}; the network has {module.config.vocab_size - 1}")
    if loader.head == "ctc":
        return ParakeetCtc(info, network, extractor, text)
    model = ParakeetTransducer(info, network, extractor, text)
    model.max_symbols = max_symbols_of(archive.config)
    return model


def _info(archive: Archive, loader: _NemoLoader, options: dict[str, str]) -> ModelInfo:
    return shared.describe_model(
        weights=tensors_digest(archive.tensors),
        family=loader.family,
        architecture=loader.name,
        features=describe(extractor_of(archive)),
        vocab_size=_text(archive).pieces.get_piece_size() + 1,
        window_samples=WINDOW_SAMPLES,
        **options,
    )


def _text(archive: Archive) -> SentencePieceText:
    if archive.tokenizer is None:
        raise ModelError(f"{archive.path} has no single SentencePiece tokenizer; other kinds are not supported")
    try:
        return SentencePieceText(archive.tokenizer)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{archive.path} has a tokenizer that cannot be read: {error}") from error
