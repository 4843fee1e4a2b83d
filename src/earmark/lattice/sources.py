"""Where logits come from: a tensor, or a joint that yields time chunks; handed out in blocks without a full copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.types import LatticeError

Block = Callable[[int, int, int], NDArray[Any]]

CHUNK_BYTES = 4 << 20
"""Size of the time chunks asked of a joint unless the caller says otherwise."""
LEAST_ROWS = 512
"""Rows of logits that a chunk holds at least: with fewer a wide last layer is read more often than it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedJoint:
    """A transducer joint that computes its logits chunk by chunk, so that (B, T, U + 1, V) never exists.

    Attributes:
        function: From first frame and frame after the last to logits (B, frames, U + 1, V + D).
        shape: Shape that the whole would have, (B, T, U + 1, V + D).
        tensors: Tensors to differentiate by in `loss`: encoder and predictor outputs, weights of the joint. Their
            device decides between the compiled and the Triton kernels.
        chunk_frames: Frames per chunk; None for chunks of about 4 MiB, or 512 rows where these take more.

    Example:
        >>> import torch
        >>> encoder, predictor = torch.zeros(1, 6, 1, 5), torch.zeros(1, 1, 3, 5)
        >>> joint = ChunkedJoint(
        ...     function=lambda start, stop: torch.tanh(encoder[:, start:stop] + predictor), shape=(1, 6, 3, 5)
        ... )
        >>> joint.function(0, 2).shape
        torch.Size([1, 2, 3, 5])
    """

    function: Callable[[int, int], Any]
    shape: tuple[int, int, int, int]
    tensors: Sequence[Any] = ()
    chunk_frames: int | None = None

    def __post_init__(self) -> None:
        """Check the size of the chunks.

        Raises:
            LatticeError: It is not positive.
        """
        if self.chunk_frames is not None and self.chunk_frames < 1:
            raise LatticeError(f"chunk_frames is {self.chunk_frames}; give at least 1, or None for about 4 MiB")

    def spans(self) -> list[tuple[int, int]]:
        """Return first frame and frame after the last of every chunk."""
        batch, frames, nodes, width = self.shape
        rows = max(1, batch * nodes)
        step = self.chunk_frames or max(1, CHUNK_BYTES // (4 * rows * max(1, width)), LEAST_ROWS // rows)
        return [(start, min(start + step, frames)) for start in range(0, frames, step)]

    def compute(self, start: int, stop: int) -> Any:
        """Return one chunk of logits after checking its shape."""
        chunk = self.function(start, stop)
        expected = (self.shape[0], stop - start, *self.shape[2:])
        if tuple(chunk.shape) != expected:
            raise LatticeError(f"the joint gave {tuple(chunk.shape)} for frames {start} to {stop}; expected {expected}")
        return chunk


def shape_of(logits: Any, dimensions: int) -> tuple[int, ...]:
    """Return the shape of logits after checking it.

    Raises:
        LatticeError: Another number of dimensions, or an empty one.

    Example:
        >>> shape_of(np.zeros((2, 5, 3)), 3)
        (2, 5, 3)
    """
    shape = tuple(int(n) for n in logits.shape)
    names = {3: "(batch, frames, vocabulary)", 4: "(batch, frames, tokens + 1, vocabulary + durations)"}
    if len(shape) != dimensions or 0 in shape:
        raise LatticeError(f"logits have shape {shape}; give {names[dimensions]}, none of them 0")
    return shape


def as_block(values: Any) -> NDArray[Any]:
    """Return a tensor or array as contiguous, writable float32 or float64 numpy, copying only if it must."""
    if hasattr(values, "detach"):
        import torch

        values = values.detach()
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float()
        values = values.cpu().contiguous().numpy()
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    return np.require(array, requirements=["C", "W"])


def chunks(logits: Any) -> Iterator[tuple[int, int, Block]]:
    """Yield (start, stop, block) for each chunk; block(item, first, last) is (frames, ..., V) as numpy.

    Args:
        logits: Tensor or array (B, T, ...), or a `ChunkedJoint`; half precision is widened block by block.
    """
    if not isinstance(logits, ChunkedJoint):
        yield 0, int(logits.shape[1]), lambda item, first, last: as_block(logits[item, first:last])
        return
    import torch

    for start, stop in logits.spans():
        with torch.no_grad():
            part = logits.compute(start, stop)

        def block(item: int, first: int, last: int, part: Any = part, start: int = start) -> NDArray[Any]:
            return as_block(part[item, first - start : last - start])

        yield start, stop, block
        del part, block
