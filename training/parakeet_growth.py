"""Growth of a trained Parakeet: more layers and wider feed-forward parts that compute the same at first.

    python -m training.parakeet_growth --state build/parakeet-nano-2/state.pt --to build/parakeet-large/begin.pt

Chen, Goodfellow and Shlens, Net2Net: Accelerating Learning via Knowledge Transfer, 2016 (arXiv:1511.05641): the
weights behind new units, and behind the branches of new layers, are zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderBlock

from training.parakeet_model import SIZES, Hybrid

FEED_FORWARDS = ("feed_forward1", "feed_forward2")
BRANCHES = ("feed_forward1.linear2", "feed_forward2.linear2", "self_attn.o_proj", "conv.pointwise_conv2")


@torch.no_grad()
def grow(small: Hybrid, large: Hybrid) -> None:
    """Give `large`, of the same widths and at least as many layers and inner units, the function of `small`."""
    blocks, grown = small.ctc.encoder.layers, large.ctc.encoder.layers
    kept = {name: value for name, value in small.state_dict().items() if ".encoder.layers." not in name}
    large.load_state_dict(kept, strict=False)
    for own, new in zip(blocks, grown[: len(blocks)], strict=True):
        _widen(own, new)
    if len(grown) == len(blocks):
        return
    for new in grown[len(blocks) :]:
        for name in BRANCHES:
            _clear(new.get_submodule(name))
    grown[-1].norm_out.load_state_dict(blocks[-1].norm_out.state_dict())
    grown[len(blocks) - 1].norm_out.reset_parameters()  # what is normalised twice is normalised once


def _widen(own: ParakeetEncoderBlock, new: ParakeetEncoderBlock) -> None:
    for name in FEED_FORWARDS:
        _clear(new.get_submodule(name).linear2)
    state = new.state_dict()
    for name, value in own.state_dict().items():
        _corner(state[name], value)
    new.load_state_dict(state)


def _corner(large: Tensor, small: Tensor) -> None:
    large[tuple(slice(length) for length in small.shape)] = small


def _clear(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="large")
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()
    kept = torch.load(arguments.state, weights_only=True)
    small, large = Hybrid(SIZES["reference"], seed=0), Hybrid(SIZES[arguments.size], seed=0)
    small.load_state_dict(kept["model"])
    grow(small, large)
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": large.state_dict(), "counters": kept["counters"]}, arguments.to)


if __name__ == "__main__":
    main()
