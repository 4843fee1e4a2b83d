"""The usual joint of a transducer, activation(encoder + predictor) then linear, kept as its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from earmark.lattice.sources import ChunkedJoint
from earmark.lattice.types import LatticeError


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveJoint:
    """A joint whose logits are linear(activation(encoder[t] + predictor[u])).

    On a CUDA device one kernel goes from these tensors to normalisers and gathered values; elsewhere, and for
    gradients, the logits are computed in time chunks. (B, T, U + 1, V) is never written.

    Attributes:
        encoder: Projected encoder output, (B, T, H).
        predictor: Projected predictor output, (B, U + 1, H).
        weight: Weight of the last layer, (V + D, H).
        bias: Its bias, (V + D,), or None.
        activation: `tanh` or `relu`.

    Example:
        >>> import torch
        >>> joint = AdditiveJoint(
        ...     encoder=torch.zeros(1, 5, 4), predictor=torch.zeros(1, 3, 4), weight=torch.zeros(6, 4)
        ... )
        >>> joint.shape
        (1, 5, 3, 6)
    """

    encoder: Any
    predictor: Any
    weight: Any
    bias: Any = None
    activation: Literal["tanh", "relu"] = "relu"

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            LatticeError: They do not.
        """
        shapes = [tuple(x.shape) for x in (self.encoder, self.predictor, self.weight)]
        (e, p, w), widths = shapes, {shape[-1] for shape in shapes}
        fits = (len(e), len(p), len(w)) == (3, 3, 2) and e[0] == p[0] and len(widths) == 1
        if not fits or (self.bias is not None and tuple(self.bias.shape) != w[:1]):
            bias = None if self.bias is None else tuple(self.bias.shape)
            raise LatticeError(
                f"encoder {e}, predictor {p}, weight {w} and bias {bias} make no joint; "
                "give (B, T, H), (B, U + 1, H), (V + D, H) and (V + D,)"
            )
        if self.activation not in ("tanh", "relu"):
            raise LatticeError(f"activation is {self.activation!r}; use 'tanh' or 'relu'")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape that the logits would have, (B, T, U + 1, V + D)."""
        return (*self.encoder.shape[:2], self.predictor.shape[1], self.weight.shape[0])

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The tensors to differentiate by."""
        parts = (self.encoder, self.predictor, self.weight, self.bias)
        return tuple(part for part in parts if part is not None)

    def chunked(self) -> ChunkedJoint:
        """Return the same joint as one that yields time chunks."""
        import torch

        activate = torch.tanh_ if self.activation == "tanh" else torch.relu_  # on a sum that nothing else holds

        def function(start: int, stop: int) -> torch.Tensor:
            hidden = activate(self.encoder[:, start:stop, None] + self.predictor[:, None])
            return torch.nn.functional.linear(hidden, self.weight, self.bias)

        return ChunkedJoint(function=function, shape=self.shape, tensors=self.tensors)
