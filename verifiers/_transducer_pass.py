"""What a transducer says along given paths, and over all alignments of their transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark import lattice
from earmark.fingerprint.frame_summary import FrameSummary
from earmark.fingerprint.frames import FrameReplay, FrameScores
from earmark.fingerprint.margins import argmax_margins
from earmark.protocols import SegmentInput, TransducerModel
from earmark.taps import Taps
from earmark.verifiers._common_trace import Floats, Ints
from earmark.verifiers._frames_pass import alignment, at_listed, listed_by, margins, row_scores, targets_of
from earmark.verifiers._frames_sketch import sketch_of
from earmark.verifiers._transducer_path import allowed_durations, blanks_of, emitted_of, tokens_of

if TYPE_CHECKING:
    import torch

    from earmark.lattice import LatticeScores

NODES_AT_ONCE = 512
"""Steps whose logits are computed at once: bounds their memory."""


class Pass:
    """A batch forced along paths: logits of every step, and the lattice of every transcript.

    Args:
        model: The model.
        encoded: The encoded batch.
        paths: Path of each row, (steps, 3).
    """

    def __init__(self, model: TransducerModel, encoded: Any, paths: Sequence[Ints]) -> None:
        """Run the prediction network along the transcripts."""
        self.model, self.paths = model, paths
        self.tokens = [tokens_of(path, model) for path in paths]
        self.emitted = [emitted_of(path, tokens) for path, tokens in zip(paths, self.tokens, strict=True)]
        self.frames = [model.frames(encoded, row) for row in range(len(paths))]
        self.states = model.predict(self.emitted)

    def lattice(self) -> LatticeScores:
        """Return the exact scores of all transcripts, with the open end of greedy decoding."""
        return solve(self.model, self.frames, self.states, self.emitted)

    def logits(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 logits of tokens and of durations at every step of one row."""
        import torch

        spoken = self.tokens[row] >= 0
        before: Ints = np.cumsum(spoken) - spoken
        device = self.states.device
        at = torch.as_tensor(np.stack([self.paths[row][:, 0], before], axis=1), device=device)
        parts = [
            self.model.joint(self.frames[row][part[:, 0]], self.states[row, part[:, 1]]).float()
            for part in torch.split(at, NODES_AT_ONCE)
        ]
        joined, vocab = torch.cat(parts), self.model.info.vocab_size
        return joined[:, :vocab], joined[:, vocab:]

    def scores(self, row: int, *, k: int, sketch: Floats, log_likelihood: float) -> FrameScores:
        """Return what the model says along the path of one row."""
        return self._scores(row, self.logits(row), k=k, sketch=sketch, log_likelihood=log_likelihood)

    def _scores(self, row: int, logits: tuple[torch.Tensor, torch.Tensor], *, k: int, **others: Any) -> FrameScores:
        tokens, durations = logits
        return FrameScores(
            emitted=self.emitted[row],
            frames=len(self.frames[row]),
            path=self.paths[row],
            tokens=self.tokens[row],
            durations=durations.log_softmax(dim=-1).cpu().double().numpy(),
            **row_scores(tokens, self.paths[row][:, 1], k, self.model.blank_id),
            **others,
        )

    def replay(
        self, row: int, claimed: FrameScores | FrameSummary, item: SegmentInput, *, solved: LatticeScores, taps: Taps
    ) -> FrameReplay:
        """Return what the reference says along the provider's path of one row."""
        logits, listed = self.logits(row), listed_by(claimed)
        sketch = sketch_of(self.model, item, row, taps)[: len(claimed.sketch)]
        likelihood = float(solved.log_likelihood[row])
        return FrameReplay(
            scores=self._scores(row, logits, k=max(1, listed.shape[1]), sketch=sketch, log_likelihood=likelihood),
            at_listed=at_listed(logits[0], listed),
            margins=margins(logits[0], claimed.path[:, 1]),
            duration_margins=self._duration_margins(row, logits[1]),
            alignment=alignment(solved, row, claimed, item, blanks_of(self.model)),
        )

    def _duration_margins(self, row: int, durations: torch.Tensor) -> Floats:
        """Return how far the best duration that leads to the step's lies below the best of all."""
        if not self.model.durations:
            return np.empty(0)
        values = durations.cpu().double().numpy()
        allowed = allowed_durations(self.paths[row], self.tokens[row] >= 0, self.model)
        return argmax_margins(values.max(axis=1), np.where(allowed, values, -np.inf).max(axis=1))


def solve(
    model: TransducerModel, frames: Sequence[torch.Tensor], states: torch.Tensor, transcripts: Sequence[Sequence[int]]
) -> LatticeScores:
    """Return the exact scores of one transcript per row, with the open end of greedy decoding.

    Args:
        model: The model.
        frames: Encoder states of each row, ready for the joint, (frames, width_e).
        states: The prediction network's states along the transcripts, (rows, tokens + 1, width_p).
        transcripts: Their ids.
    """
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    targets, counts = targets_of(transcripts)
    return lattice.transducer(
        model.lattice_joint(padded, states),
        targets,
        [len(own) for own in frames],
        counts,
        model.blank_id,
        durations=model.durations or None,
        big_blanks=dict(model.big_blanks) or None,
        rule="open_end",
        on_error="keep",
    )
