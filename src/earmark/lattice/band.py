"""CTC inside a band of tokens for very long audio: memory of T times the width, and a bound on what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice import band_kernels
from earmark.lattice.checks import check_blank, ctc_frames_needed
from earmark.lattice.extended import NOTHING, log_of
from earmark.lattice.fst import transcript
from earmark.lattice.solve import Alignment, ctc_alignment, ctc_skips
from earmark.lattice.sources import as_block, shape_of
from earmark.lattice.types import LatticeError

Floats = NDArray[np.float64]
BLOCK_FRAMES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BandScores:
    """What a band of the CTC lattice of one item says; nats and frames.

    Attributes:
        log_likelihood: log of the mass of all alignments inside the band: never above the exact value.
        lost_nats: The exact log-likelihood is at most `log_likelihood + lost_nats`.
        alignment: Best path and entropy inside the band.
        first: Least number of tokens out that the band holds at each frame, (T,).
        token_occupancy: Posterior of token first[t] - 1 + j at frame t, (T, W); the first has none where it is -1.
        blank_occupancy: Posterior of the blank after first[t] + j tokens, (T, W).
        row_entropy: Gibbs entropy of each frame, (T,).
    """

    log_likelihood: float
    lost_nats: float
    alignment: Alignment
    first: NDArray[np.int64]
    token_occupancy: Floats
    blank_occupancy: Floats
    row_entropy: Floats

    def __repr__(self) -> str:
        """Return one line with the bound."""
        return (
            f"BandScores(log_likelihood={self.log_likelihood:.4f}, lost_nats<={self.lost_nats:.3g}, "
            f"width={self.token_occupancy.shape[1]})"
        )


def ctc_band(logits: Any, targets: Any, blank: int, *, width: int, centre: Any = None) -> BandScores:
    """Score one transcript under CTC inside a band, with a bound on the mass outside it.

    Mass leaves the band at its edges; what leaves at frame t can at most be carried on by the summed probability of
    the transcript's symbols in each later frame. The exact `ctc` is the default everywhere; this is for audio whose
    T times U does not fit in memory.

    Args:
        logits: Logits of one item, (T, V), tensor or array; read in blocks of frames.
        targets: Token ids, (U,).
        blank: Id of the blank; negative ids count from the end.
        width: Token counts the band holds at each frame, at least 2.
        centre: Tokens out at each frame around which the band lies, (T,), for instance from a provider's alignment;
            None for the straight line from 0 to U.

    Returns:
        The scores; print them for the bound.

    Raises:
        LatticeError: The input is faulty, the transcript infeasible, or no alignment lies in the band.

    Example:
        >>> ctc_band(np.zeros((6, 3)), [1, 2, 1], 0, width=4)
        BandScores(log_likelihood=-2.1609, lost_nats<=0, width=4)
    """
    frames, vocabulary = shape_of(logits[None], 3)[1:]
    blank = check_blank(blank, vocabulary)
    labels = transcript((frames, vocabulary), targets, {blank}, vocabulary)
    needed = ctc_frames_needed(labels)
    if frames < needed:
        raise LatticeError(f"{len(labels)} tokens need {needed} frames, there are {frames}")
    lo = _band(frames, len(labels), width, centre)
    width = min(width, len(labels) + 1)
    scores, mass, entropies = np.empty((frames, width + 1)), np.empty(frames), np.empty((frames, 1))
    symbols = np.concatenate([[blank], np.unique(labels)]).astype(np.int64)
    for t in range(0, frames, BLOCK_FRAMES):
        part = slice(t, min(t + BLOCK_FRAMES, frames))
        bad = band_kernels.gather_band(
            as_block(logits[part]), labels, symbols, lo[part], scores[part], mass[part], entropies[part]
        )
        if bad >= 0:
            raise LatticeError(f"the logits at frame {t + bad} hold NaN or +inf, or are all -inf")
    return _solve(scores, mass, entropies, labels=labels, blank=blank, lo=lo)


def _band(frames: int, tokens: int, width: int, centre: Any) -> NDArray[np.int64]:
    """Return the first token count of the band at each frame; never falling, from 0, up to the end."""
    if width < 2:
        raise LatticeError(f"width is {width}; a band holds at least 2 token counts")
    line = np.linspace(0, tokens, frames) if centre is None else np.asarray(centre, np.float64)
    if line.shape != (frames,):
        raise LatticeError(f"centre has shape {line.shape}; give one token count per frame, ({frames},)")
    if not np.isfinite(line).all():
        raise LatticeError(f"centre holds {line[~np.isfinite(line)][0]}; give finite token counts")
    most = max(tokens + 1 - width, 0)
    lo = np.clip(np.round(line - width / 2), 0, most).astype(np.int64)
    lo[0], lo[-1] = 0, most if frames > 1 else 0
    return np.maximum.accumulate(lo)


def _solve(
    scores: Floats,
    mass: Floats,
    entropies: Floats,
    *,
    labels: NDArray[np.int64],
    blank: int,
    lo: NDArray[np.int64],
) -> BandScores:
    frames, columns = scores.shape
    last = len(labels)
    if last - lo[-1] + 1 >= columns:
        raise LatticeError(f"a band of {columns - 1} cannot hold {last} tokens in {frames} frame(s)")
    skips = np.full(last + columns + 8, NOTHING, np.int64)
    skips[band_kernels.SHIFT : band_kernels.SHIFT + last + 1] = ctc_skips(labels)
    suffix = np.concatenate([np.cumsum(mass[::-1])[::-1], [0.0]])
    shape = (frames, columns)
    rows = (np.empty(shape), np.empty(shape, np.int64), np.empty(shape), np.empty(shape, np.int64))
    m, e, lost = band_kernels.forward(scores, skips, lo, last, rows, suffix)
    if m == 0.0:
        raise LatticeError("no alignment lies in the band; give a larger width or another centre")
    blanks, tokens = np.empty((frames, columns - 1)), np.empty((frames, columns - 1))
    entropy = band_kernels.backward(scores, skips, lo, last, rows, (m, e), blanks, tokens)
    states = np.empty(frames, np.int32)
    best = band_kernels.viterbi(scores, skips, lo, last, states)
    total = log_of(m, e)
    return BandScores(
        log_likelihood=total,
        lost_nats=float(np.logaddexp(0.0, lost - total)),
        alignment=ctc_alignment(states, labels, blank, (total, entropy, best)),
        first=lo,
        token_occupancy=tokens,
        blank_occupancy=blanks,
        row_entropy=entropies[:, 0],
    )
