"""Cutting audio into segments, what is billed, and real recordings."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from audio_cases import clip, golden_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import audio
from earmark.errors import AudioError

# segments and billing


def test_short_audio_is_one_segment() -> None:
    """Audio that fits is not cut."""
    assert audio.segment(clip().samples, 16_000) == ((0, 16_000),)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60_000),
    max_samples=st.integers(2_000, 20_000),
    share=st.floats(0, 1),
    quiet=st.booleans(),
)
def test_segments_cover(seed: int, count: int, max_samples: int, share: float, quiet: bool) -> None:
    """Segments follow one another, cover the audio, and keep to the limits, whatever the audio."""
    least = max(1, int(share * 2 * (max_samples - 160) / 3))
    samples = np.random.default_rng(seed).integers(-1 if quiet else -32_768, 1 if quiet else 32_768, count)
    parts = audio.segment(samples.astype(np.int16), max_samples, min_samples=least)
    assert parts[0][0] == 0
    assert parts[-1][1] == count
    assert all(one[1] == other[0] for one, other in pairwise(parts))
    assert all(0 < stop - start <= max_samples for start, stop in parts)
    assert all(least <= stop - start and stop % 160 == 0 for start, stop in parts[:-1])
    if len(parts) > 1:
        assert parts[-1][1] - parts[-1][0] >= least // 2


def test_segments_follow_the_rule() -> None:
    """Each boundary is the quietest of its window, the latest of equals, by sums taken one by one."""
    samples = np.repeat(golden_samples(16_000, 1, "int16")[:, 0], 12)
    squares = samples.astype(object) ** 2
    start = 0
    for _, stop in audio.segment(samples, 20_000, min_samples=9_000)[:-1]:
        places = range(-(-(start + 9_000) // 160) * 160, min(start + 20_000, len(samples) - 4_500) + 1, 160)
        loudness = {place: squares[place - 480 : place + 480].sum() for place in places}
        assert stop == max(p for p in places if loudness[p] == min(loudness.values()))
        start = stop


def test_silence_is_cut_late() -> None:
    """Where all is equal the segments are as long as can be."""
    assert audio.segment(np.zeros(50_000, np.int16), 16_000)[:2] == ((0, 16_000), (16_000, 32_000))


@pytest.mark.parametrize(("most", "least"), [(1_999, None), (20_000, 0), (20_000, 13_300), (20_000, -5)])
def test_bad_limits(most: int, least: int | None) -> None:
    """Limits that leave no choice are refused."""
    with pytest.raises(AudioError, match="widen the range"):
        audio.segment(np.zeros(50_000, np.int16), most, min_samples=least)


def test_billed_tokens() -> None:
    """50 tokens per second begun, without the surprises of floating point."""
    for samples in (*range(1, 2_000), 464_000, 16_000 * 3_600 * 3 + 1):
        assert audio.billed_tokens(samples / 16_000) == -(-samples // 320)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(AudioError, match="finite number"):
            audio.billed_tokens(wrong)


# real recordings


@pytest.mark.speech
def test_all_recordings_load(speech_dir: Path) -> None:
    """Every real recording is accepted, the shortest digits included."""
    rows = [json.loads(line) for line in (speech_dir / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        found = audio.load(speech_dir / row["path"])
        assert found.seconds == pytest.approx(row["seconds"], abs=1e-3)
        assert found.lossless


@pytest.mark.speech
def test_cuts_fall_into_pauses(speech_dir: Path) -> None:
    """In read speech the cuts lie where the level is far below the clip's."""
    names = (
        "watson/en-US_Broadband_sample1",
        "watson/es-ES_Broadband_sample1",
        "watson/it-IT_BroadbandModel_sample1",
    )
    clips = [audio.load(speech_dir / f"{name}.flac").samples for name in names]
    reader = [audio.load(path).samples for path in sorted((speech_dir / "ljspeech").glob("LJ001-00*.flac"))]
    for samples in (*clips, np.concatenate(reader)):
        power = samples.astype(np.float64) ** 2
        for _, cut_at in audio.segment(samples, 10 * 16_000)[:-1]:
            around = power[cut_at - 480 : cut_at + 480].mean()
            assert 10 * np.log10((around + 1) / power.mean()) < -20
