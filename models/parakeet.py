"""Parakeet: CTC, RNN-T and TDT checkpoints of every size, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from earmark.checkpoint import read_config, weights_digest
from earmark.features import describe
from earmark.models import _transformers as shared
from earmark.models._parakeet_parts import WINDOW_SAMPLES, Parakeet, ParakeetCtc, ParakeetTransducer

P = TypeVar("P", bound=Parakeet)


class TokenizerText:
    """The words of a tokenizer of transformers.

    Args:
        tokenizer: A `ParakeetTokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self.tokenizer = tokenizer

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of a transcript; repeats are its own, so none is joined."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, group_tokens=False))

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        special = set(self.tokenizer.all_special_ids)
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        return shared.word_index(pieces, [i not in special for i in ids])


class ParakeetCtcLoader:
    """Opens Parakeet CTC checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "parakeet-ctc"
    family: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "Parakeet CTC of every size (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the architecture."""
        return bool(read_config(folder).get("model_type") == "parakeet_ctc")

    def load(self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str) -> ParakeetCtc:
        """Load network and processor."""
        import transformers

        options = {"name": name, "device": device, "dtype": dtype, "arithmetic": arithmetic, "attention": attention}
        return _load(folder, transformers.ParakeetForCTC, ParakeetCtc, self, options)


class ParakeetTransducerLoader:
    """Opens Parakeet RNN-T and TDT checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "parakeet-transducer"
    family: ClassVar[str] = "transducer"
    summary: ClassVar[str] = "Parakeet RNN-T and TDT of every size (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names one of the architectures."""
        return read_config(folder).get("model_type") in ("parakeet_rnnt", "parakeet_tdt")

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> ParakeetTransducer:
        """Load network and processor."""
        import transformers

        tdt = read_config(folder)["model_type"] == "parakeet_tdt"
        kind = transformers.ParakeetForTDT if tdt else transformers.ParakeetForRNNT
        options = {"name": name, "device": device, "dtype": dtype, "arithmetic": arithmetic, "attention": attention}
        return _load(folder, kind, ParakeetTransducer, self, options)


def _load(
    folder: Path,
    kind: Any,
    adapter: type[P],
    loader: ParakeetCtcLoader | ParakeetTransducerLoader,
    options: dict[str, str],
) -> P:
    import transformers

    digest = weights_digest(folder)
    with shared.opening(folder, kind.__name__):
        module = shared.read_network(kind, folder, attention=options["attention"], unused=("num_batches_tracked",))
        processor = transformers.ParakeetProcessor.from_pretrained(folder, local_files_only=True)
    info = shared.describe_model(
        weights=digest,
        family=loader.family,
        architecture=loader.name,
        features=describe(processor.feature_extractor),
        vocab_size=int(module.config.vocab_size),
        window_samples=WINDOW_SAMPLES,
        **options,
    )
    precision = {name: options[name] for name in ("device", "dtype", "arithmetic")}
    network = shared.rounded(module, **precision)
    return adapter(info, network, processor.feature_extractor, TokenizerText(processor.tokenizer))
