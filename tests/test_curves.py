"""Words stand on the entropy curve where their first token was heard."""

from __future__ import annotations

import numpy as np
import pytest

import earmark
from earmark import Clip
from earmark.fingerprint.alignment import first_positions
from earmark.loading import family_of
from earmark.recording import segment_inputs


@pytest.mark.parametrize("name", ["parakeet-ctc-nano", "parakeet-tdt-nano"])
def test_a_word_stands_at_the_first_frame_of_its_first_token(name, clips):
    """Also where a token lasts for several frames, as in CTC."""
    model = earmark.load(f"embedded:{name}")
    family = family_of(model)
    held = 0
    for audio in (clip.audio for clip in clips[:6]):
        clip = Clip(audio=audio, request=earmark.request(audio))
        evidence = earmark.record(model, clip.request, audio)
        items = segment_inputs(clip, model)
        traces = [family.read(segment, clip.request, model, "scores") for segment in evidence.segments]
        replays = family.replay(model, items, traces, batch_size=1, advance=lambda _: None)
        for trace, replay in zip(traces, replays, strict=True):
            curve = family.curve(trace, replay, model)
            firsts = first_positions(trace.tokens)
            held += int((trace.tokens >= 0).sum()) - len(firsts)
            words = np.asarray(model.word_index(trace.emitted))
            wanted = [curve.places[firsts[int(np.flatnonzero(words == word)[0])]] for word in np.unique(words)]
            assert [place for place, _ in curve.words] == pytest.approx(wanted)
    assert held > 0 or name == "parakeet-tdt-nano"
