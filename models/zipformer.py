"""Zipformer: streaming transducers of icefall, as exported to ONNX for sherpa-onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, UsageError
from earmark.greedy import greedy_steps
from earmark.protocols import ModelInfo, Step, Strategy
from earmark.records import lines

if TYPE_CHECKING:
    import torch

    from earmark.lattice import ChunkedJoint
    from earmark.models._zipformer_network import Network

PARTS = ("encoder", "decoder", "joiner")
QUANTISED = "int8"
"""Stands in the names of exports with integer weights."""
WINDOW_SAMPLES = 30 * 16_000
TAIL_SAMPLES = 9_600
"""Silence behind every piece, 0.6 s: a streaming encoder writes the last words only after hearing what follows."""
CONTEXT_START = -1
"""What icefall's decoder sees before the first blank."""
WORD_START = "\u2581"


class ZipformerLoader:
    """Opens folders with encoder*.onnx, decoder*.onnx, joiner*.onnx and tokens.txt, no config.json needed.

    Of each part the float32 export is taken; where a folder holds int8 exports alone, those. Two candidates for one
    part are refused: keep each variant in a folder of its own.
    """

    name: ClassVar[str] = "zipformer"
    family: ClassVar[str] = "transducer"
    summary: ClassVar[str] = "streaming Zipformer transducers (icefall, sherpa-onnx exports)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether the files of such an export are there."""
        return (folder / "tokens.txt").is_file() and all(any(folder.glob(f"{part}*.onnx")) for part in PARTS)

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> ZipformerModel:
        """Open the three graphs; a CUDA device is used only where ONNX Runtime was installed for it."""
        if {dtype, arithmetic} != {"float32"}:
            raise UsageError(
                f"{name}: an ONNX export computes in the precision it was exported in, not in {dtype}; "
                "claim float32, or export it anew"
            )
        import torch

        from earmark.models import _kaldi, _onnx
        from earmark.models._zipformer_network import Network

        paths = {part: choose_part(folder, part) for part in PARTS}
        where = _onnx.runs_on(device)
        network = Network(paths, device=where, threads=torch.get_num_threads())
        tokens = read_tokens(folder / "tokens.txt", network.vocab_size)
        info = ModelInfo(
            name=name,
            family=self.family,
            architecture=self.name,
            weights=network.digest,
            precision="fp32",
            arithmetic="fp32",
            features=_kaldi.parameters(),
            vocab_size=network.vocab_size,
            window_samples=WINDOW_SAMPLES,
            engine=f"onnxruntime {_onnx.runtime().__version__}",
            device=where,
            attention=attention,
        )
        return ZipformerModel(info, network, tokens)


def choose_part(folder: Path, part: str) -> Path:
    """Return the file of one part: the float32 export, or the int8 one where it stands alone.

    Args:
        folder: The checkpoint.
        part: `encoder`, `decoder` or `joiner`.

    Raises:
        ModelError: There is none, or more than one.
    """
    found = sorted(folder.glob(f"{part}*.onnx"))
    full = [path for path in found if QUANTISED not in path.name.split(".")]
    candidates = full or found
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise ModelError(f"{folder} has {names} for the {part}; expected one file: keep each variant in its own folder")
    return candidates[0]


def read_tokens(path: Path, vocab_size: int) -> list[str]:
    """Read tokens.txt: a piece and its id per line, ids 0 to vocab_size - 1, the blank first.

    Args:
        path: The file.
        vocab_size: How many pieces the network has.

    Returns:
        Pieces in the order of their ids.

    Raises:
        ModelError: It is of another model, or damaged.
    """
    try:
        rows = [line.rsplit(maxsplit=1) for _, line in lines.numbered(path)]
        pieces = {int(number): piece for piece, number in rows}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as pieces with ids: {error}") from error
    if len(pieces) != len(rows) or sorted(pieces) != list(range(vocab_size)) or pieces[0] != "<blk>":
        raise ModelError(
            f"{path.name} has {len(rows)} pieces, the first {pieces.get(0)!r}; the network has {vocab_size} and "
            "begins with '<blk>': it is of another model"
        )
    return [pieces[i] for i in range(vocab_size)]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoder output of a batch, (batch, frames, width), and the frames of each row without padding."""

    states: torch.Tensor
    lengths: list[int]


class ZipformerModel:
    """One Zipformer export behind the interface of the transducer family.

    Integer arithmetic is part of an int8 export, so it is a model of its own, with its own digest: it replays itself,
    and a claim of float32 is checked with the float32 export.

    Args:
        info: Facts about it.
        module: Its three graphs.
        tokens: Pieces by id.
    """

    blank_id: int = 0
    durations: tuple[int, ...] = ()
    big_blanks: Mapping[int, int] = {}
    max_symbols: int = 1
    strategy: Strategy = "ar"

    def __init__(self, info: ModelInfo, module: Network, tokens: Sequence[str]) -> None:
        self.info, self.module, self.tokens = info, module, list(tokens)

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without pieces in angle brackets."""
        pieces = (self.tokens[i] for i in ids)
        return "".join(p for p in pieces if not _is_special(p)).replace(WORD_START, " ").strip()

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id: a piece that starts with U+2581 opens a word."""
        index, word = [], -1
        for piece in (self.tokens[i] for i in ids):
            word += piece.startswith(WORD_START) or (word < 0 and not _is_special(piece))
            index.append(-1 if _is_special(piece) else word)
        return index

    # network

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the encoder as one layer: the graph shows no other states."""
        return [self.module.encoder]

    def encoder_positions(self, samples: int) -> int:
        """Return the encoder frames of a piece and of the silence behind it."""
        from earmark.models._kaldi import frame_count

        return self.module.encoder.positions(frame_count(samples + TAIL_SAMPLES))

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoded batch; the encoder looks back only, so silence behind a shorter row changes nothing."""
        import torch

        from earmark.models._kaldi import fbank

        longest = max(len(piece) for piece in samples) + TAIL_SAMPLES
        waveforms = (np.pad(piece.astype(np.float64) / 32768.0, (0, longest - len(piece))) for piece in samples)
        features = torch.from_numpy(np.stack([fbank(waveform) for waveform in waveforms]))
        return Encoded(self.module.encoder(features), [self.encoder_positions(len(piece)) for piece in samples])

    def lengths(self, encoded: Encoded) -> list[int]:
        """Return the frames of each row."""
        return encoded.lengths

    def frames(self, encoded: Encoded, row: int) -> torch.Tensor:
        """Return the encoder states of one row, (frames, width)."""
        return encoded.states[row, : encoded.lengths[row]]

    def predict(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the decoder's states along each transcript, (batch, tokens + 1, width)."""
        import torch

        length = max(len(row) for row in ids)
        fed = torch.full((len(ids), length + self.module.context), self.blank_id)
        fed[:, : self.module.context - 1] = CONTEXT_START
        for row, own in zip(fed, ids, strict=True):
            row[self.module.context : self.module.context + len(own)] = torch.as_tensor(own, dtype=torch.long)
        contexts = fed.unfold(1, self.module.context, 1)
        states = self.module.decode(contexts.flatten(0, 1))
        return states.reshape(*contexts.shape[:2], -1)

    def joint(self, frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return logits (nodes, vocab) of pairs of encoder and decoder states."""
        return self.module.join(frames, states)

    def lattice_joint(self, frames: torch.Tensor, states: torch.Tensor) -> ChunkedJoint:
        """Return the joint over all pairs of (batch, frames, width) and (batch, tokens + 1, width)."""
        from earmark.lattice import ChunkedJoint

        batch, nodes = states.shape[:2]

        def function(start: int, stop: int) -> torch.Tensor:
            shape = (batch, stop - start, nodes)
            left = frames[:, start:stop, None].expand(*shape, -1).flatten(0, 2)
            right = states[:, None].expand(*shape, -1).flatten(0, 2)
            return self.joint(left, right).reshape(*shape, -1)

        return ChunkedJoint(function=function, shape=(batch, frames.shape[1], nodes, self.info.vocab_size))

    def greedy(self, encoded: Encoded) -> list[list[Step]]:
        """Decode greedily with at most one piece per frame, as sherpa does."""
        import torch

        def predictor(
            tokens: torch.Tensor, memory: tuple[torch.Tensor, ...] | None
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            before = memory[0] if memory else torch.full((len(tokens), self.module.context), CONTEXT_START)
            context = torch.cat([before[:, 1:], tokens[:, None]], dim=1)
            return self.module.decode(context), (context,)

        return greedy_steps(
            [self.frames(encoded, row) for row in range(len(encoded.lengths))],
            predictor=predictor,
            joint=self.joint,
            blank=self.blank_id,
            max_symbols=self.max_symbols,
        )

    # copies

    def in_float32(self) -> ZipformerModel:
        """Return itself: it computes as it was exported."""
        return self

    def with_module(self, module: Network) -> ZipformerModel:
        """Return the same model around other graphs of the same shapes."""
        return ZipformerModel(self.info, module, self.tokens)

    def with_threads(self, threads: int) -> ZipformerModel:
        """Return the same model on that many threads; by default it takes as many as torch."""
        return self.with_module(self.module.with_threads(threads))


def _is_special(piece: str) -> bool:
    return piece.startswith("<") and piece.endswith(">")
