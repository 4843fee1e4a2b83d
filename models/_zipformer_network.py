"""The three graphs of a streaming Zipformer export as one torch module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models._kaldi import N_MELS
from earmark.models._onnx import OnnxGraph, digest_of

FEATURES, OUTPUT, NEXT = "x", "encoder_out", "new_"
"""Names in the exports: features, encoder states; what a state becomes is called like it, after NEXT."""


class StreamingEncoder(nn.Module):
    """The encoder: it hears chunks one after the other and carries its cached states from each to the next.

    Args:
        graph: An export with inputs `x` and states, outputs `encoder_out` and `new_` states.

    Attributes:
        chunk: Feature frames of a chunk.
        shift: Feature frames from one chunk to the next.
        frames: Encoder frames that a chunk gives.
        width: Width of a frame.

    Raises:
        ModelError: The graph is no such export.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.graph = graph
        self.chunk, self.shift = (_number(graph, key) for key in ("T", "decode_chunk_len"))
        self.states = [name for name in graph.inputs if name != FEATURES]
        output = graph.outputs.get(OUTPUT, ())
        if graph.inputs.get(FEATURES, ())[1:] != (self.chunk, N_MELS) or len(output) != 3:
            found = f"{FEATURES} {graph.inputs.get(FEATURES)} and {OUTPUT} {graph.outputs.get(OUTPUT)}"
            raise ModelError(
                f"{graph.path.name} has {found}; expected (N, {self.chunk}, {N_MELS}) and (N, frames, width)"
            )
        for name in self.states:
            if graph.inputs[name] != graph.outputs.get(NEXT + name):
                found = f"{name} {graph.inputs[name]} and {NEXT + name} {graph.outputs.get(NEXT + name)}"
                raise ModelError(f"{graph.path.name} has {found}; a state and its successor must have one shape")
        self.frames, self.width = _sizes(graph, output[1:])
        size = graph.inputs[FEATURES][0]
        self.rows = size if isinstance(size, int) else None

    def positions(self, features: int) -> int:
        """Return the encoder frames of that many feature frames; what fills no chunk at the end is not heard."""
        return self.frames * max(0, (features - self.chunk) // self.shift + 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return encoder states.

        Args:
            features: Log-mel energies (batch, frames, mels).

        Returns:
            States (batch, positions, width). An export of fixed batch size takes the rows in turn.
        """
        if self.rows is None:
            return self._stream(features)
        return torch.cat([self._stream(rows) for rows in torch.split(features, self.rows)])

    def _stream(self, features: Tensor) -> Tensor:
        states = {name: self.graph.zeros(name, len(features)) for name in self.states}
        parts = [features.new_zeros(len(features), 0, self.width)]
        for start in range(0, features.shape[1] - self.chunk + 1, self.shift):
            outputs = self.graph({FEATURES: features[:, start : start + self.chunk], **states})
            states = {name: outputs[NEXT + name] for name in self.states}
            parts.append(outputs[OUTPUT])
        return torch.cat(parts, dim=1)


class Network(nn.Module):
    """Encoder, stateless decoder and joiner.

    Args:
        paths: Part to file.
        device: `cpu` or `cuda`.
        threads: Threads within an operator.

    Attributes:
        context: How many pieces the decoder looks back.
        vocab_size: Number of pieces, the blank among them.
        digest: Digest of the three files.

    Raises:
        ModelError: A file is no such export, or the parts do not belong together.
    """

    def __init__(self, paths: Mapping[str, Path], *, device: str, threads: int) -> None:
        super().__init__()
        self._paths, self._device = dict(paths), device
        graphs = [OnnxGraph(paths[part], device=device, threads=threads) for part in ("encoder", "decoder", "joiner")]
        self.encoder = StreamingEncoder(graphs[0])
        self.decoder, self.joiner = graphs[1:]
        self.digest = digest_of(graphs)
        self.context = _number(self.decoder, "context_size")
        self.vocab_size = _number(self.decoder, "vocab_size")
        self._check()

    def _check(self) -> None:
        width = self.encoder.width
        wanted = [
            (self.decoder, {"y": (self.context,)}, {"decoder_out": (width,)}),
            (self.joiner, {"encoder_out": (width,), "decoder_out": (width,)}, {"logit": (self.vocab_size,)}),
        ]
        if self.encoder.rows not in (None, 1):
            raise ModelError(
                f"{self.encoder.graph.path.name} takes {self.encoder.rows} rows at once; export it for 1 or N"
            )
        for graph, inputs, outputs in wanted:
            found = [{name: shape[1:] for name, shape in side.items()} for side in (graph.inputs, graph.outputs)]
            if found != [inputs, outputs]:
                raise ModelError(
                    f"{graph.path.name} maps {found[0]} to {found[1]}; beside this encoder expected {inputs} to "
                    f"{outputs}: the parts are of different models"
                )

    def decode(self, contexts: Tensor) -> Tensor:
        """Return decoder states (rows, width) of the last pieces (rows, context)."""
        states: Tensor = self.decoder({"y": contexts})["decoder_out"]
        return states

    def join(self, frames: Tensor, states: Tensor) -> Tensor:
        """Return logits (rows, vocab) of encoder and decoder states (rows, width)."""
        logits: Tensor = self.joiner({"encoder_out": frames, "decoder_out": states})["logit"]
        return logits

    def with_threads(self, threads: int) -> Network:
        """Return the same network on that many threads."""
        return Network(self._paths, device=self._device, threads=threads)


def _number(graph: OnnxGraph, key: str) -> int:
    text = graph.metadata.get(key, "")
    if not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise ModelError(
            f"{graph.path.name} gives {text!r} as {key} in its metadata; expected a number, as icefall writes"
        )
    return int(text)


def _sizes(graph: OnnxGraph, shape: tuple[int | str | None, ...]) -> list[int]:
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != len(shape):
        raise ModelError(f"{graph.path.name} gives {OUTPUT} {shape} per row; expected fixed sizes")
    return sizes
