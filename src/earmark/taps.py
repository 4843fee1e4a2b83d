"""Looking at hidden states while a network runs, keeping no more than the rows that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

Place = tuple[int, int, int]
"""(layer, row of the batch, position)"""


class Taps:
    """Keeps chosen rows of the outputs of layers while the block runs.

    Args:
        layers: Modules whose output, or the first of whose outputs, is (batch, positions, width).
        places: What to keep.

    Example:
        >>> import torch
        >>> layer = torch.nn.Identity()
        >>> with Taps([layer], [(0, 1, 2)]) as taps:
        ...     _ = layer(torch.arange(12.0).reshape(2, 3, 2))
        >>> taps.states[0, 1, 2].tolist()
        [10.0, 11.0]
    """

    def __init__(self, layers: Sequence[torch.nn.Module], places: Sequence[Place]) -> None:
        """Group the places by layer."""
        self.states: dict[Place, torch.Tensor] = {}
        self._wanted: Mapping[int, list[Place]] = {
            number: [place for place in places if place[0] == number] for number in range(len(layers))
        }
        self._layers = layers
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        """Attach to the layers that are looked at."""
        for number, places in self._wanted.items():
            if places:
                self._handles.append(self._layers[number].register_forward_hook(self._keep(places)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep(self, places: Sequence[Place]) -> Any:
        rows, positions = [place[1] for place in places], [place[2] for place in places]

        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            kept = tensor[rows, positions].detach().float().cpu()
            self.states.update(zip(places, kept, strict=True))

        return hook
