"""Looking at hidden states while a network runs, keeping no more than the rows that were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

Place = tuple[int, int, int]
"""(layer, row of the batch, position)"""


class _DeepEnough(Exception):  # noqa: N818 - no error: it ends a block that has run as far as was asked
    """Leaves the network behind the last layer that is wanted."""


class Taps:
    """Keeps chosen rows of the outputs of layers while the block runs.

    Args:
        layers: Modules whose output, or the first of whose outputs, is (batch, positions, width).
        places: What to keep.
        depth: Layers after which the block is left; None runs it to its end.

    Example:
        >>> import torch
        >>> layer = torch.nn.Identity()
        >>> with Taps([layer], [(0, 1, 2)]) as taps:
        ...     _ = layer(torch.arange(12.0).reshape(2, 3, 2))
        >>> taps.states[0, 1, 2].tolist()
        [10.0, 11.0]
    """

    def __init__(self, layers: Sequence[torch.nn.Module], places: Sequence[Place], *, depth: int | None = None) -> None:
        """Group the places by layer."""
        self.states: dict[Place, torch.Tensor] = {}
        self._wanted: Mapping[int, list[Place]] = {
            number: [place for place in places if place[0] == number] for number in range(len(layers))
        }
        self._layers, self._depth = layers, depth
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        """Attach to the layers that are looked at."""
        for number, places in self._wanted.items():
            if places:
                self._handles.append(self._layers[number].register_forward_hook(self._keep(places)))
        if self._depth is not None:
            last = self._layers[min(self._depth, len(self._layers)) - 1]
            self._handles.append(last.register_forward_hook(_leave))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Detach; a block that was left because it had run deep enough has not failed."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return isinstance(error, _DeepEnough)

    def _keep(self, places: Sequence[Place]) -> Any:
        rows, positions = [place[1] for place in places], [place[2] for place in places]

        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            kept = tensor[rows, positions].detach().float().cpu()
            self.states.update(zip(places, kept, strict=True))

        return hook


def _leave(*_: Any) -> None:
    raise _DeepEnough


@contextmanager
def first_input(network: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Keep the first tensor of real numbers that enters a network while the block runs: its acoustic features.

    Args:
        network: The network.

    Yields:
        A list, empty until something enters.

    Example:
        >>> import torch
        >>> layer = torch.nn.Identity()
        >>> with first_input(layer) as entered:
        ...     _ = layer(torch.ones(1, 2)), layer(torch.zeros(1, 2))
        >>> entered[0].tolist()
        [[1.0, 1.0]]
    """
    import torch

    kept: list[torch.Tensor] = []

    def hook(_module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        real = (own for own in (*given, *named.values()) if isinstance(own, torch.Tensor) and own.is_floating_point())
        if not kept:
            kept.extend(own.detach().float().cpu() for own in [*real][:1])

    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in network.modules()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
