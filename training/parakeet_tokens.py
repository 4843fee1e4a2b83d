"""Parakeet's tokenizer with a small vocabulary: byte-pair pieces of lower-case English, then the special tokens."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ParakeetTokenizer

PIECES = 256
UNKNOWN, PAD, BLANK = "<unk>", "<pad>", "<blank>"
ALPHABET = list("▁'abcdefghijklmnopqrstuvwxyz")


def train_pieces(texts: list[str]) -> Tokenizer:
    """Learn the pieces on training texts; ids 0 to PIECES - 1, the unknown token first."""
    pieces = Tokenizer(models.BPE(unk_token=UNKNOWN))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=[UNKNOWN], initial_alphabet=ALPHABET, show_progress=False
    )
    pieces.train_from_iterator(texts, trainer)
    return pieces


def ctc_tokenizer(pieces: Tokenizer) -> ParakeetTokenizer:
    """The pieces and the padding, which is CTC's blank as in the real checkpoints."""
    return ParakeetTokenizer(tokenizer_object=pieces, unk_token=UNKNOWN, pad_token=PAD)


def tdt_tokenizer(pieces: Tokenizer) -> ParakeetTokenizer:
    """The pieces, the padding and last the blank: a transducer pads with another token than its blank."""
    tokenizer = ParakeetTokenizer(tokenizer_object=pieces, unk_token=UNKNOWN, pad_token=PAD)
    tokenizer.add_special_tokens({"additional_special_tokens": [BLANK]})
    return tokenizer


def text_ids(pieces: Tokenizer, text: str) -> list[int]:
    """Ids of a transcript; the same in both vocabularies."""
    ids: list[int] = pieces.encode(text, add_special_tokens=False).ids
    return ids
