"""Noise that every machine can repeat."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray


def gumbel_noise(seed: int, segment: int, step: int, vocab: int) -> NDArray[np.float64]:
    """Return the noise that turns an argmax into a sample, the same on every machine.

    Adding standard Gumbel noise to logits / temperature and taking the argmax draws from the softmax. The noise of a
    step depends on (seed, segment, step) alone, so neither batch nor padding changes it: the raw 64-bit stream of
    Philox under a key derived by SHA-256, mapped to (0, 1) with 53 bits.

    Args:
        seed: Seed of the request.
        segment: Number of the segment in its clip.
        step: Number of the token in its segment.
        vocab: Number of values.

    Returns:
        Noise, (vocab,).

    Example:
        >>> gumbel_noise(1, 0, 0, 3).round(3).tolist() == gumbel_noise(1, 0, 0, 5)[:3].round(3).tolist()
        True

    Source: Gumbel-max trick, Maddison et al. 2014, arXiv 1411.0030, section 2.
    """
    digest = hashlib.sha256(b"earmark/gumbel/1\0" + struct.pack("<QQQ", seed, segment, step)).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    raw = np.random.Philox(key=key).random_raw(vocab)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    result: NDArray[np.float64] = -np.log(-np.log(uniform))
    return result
