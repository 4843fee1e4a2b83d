"""Real speech of many formats, rates and languages: recorded and verified without error."""

from __future__ import annotations

from itertools import pairwise

import pytest

import earmark
from earmark.audio import billed_tokens, canonicalise_file
from earmark.cli import main

#: What each clip is for.
CLIPS = {
    "misc/jfk.flac": "11 s, over two windows of 10 s",
    "misc/harvard.flac": "44.1 kHz stereo",
    "misc/ru_deepspeech.wav": "Russian",
    "fsdd/7_jackson_0.wav": "8 kHz, one digit",
    "aishell/BAC009S0724W0121.wav": "Mandarin",
}


@pytest.mark.speech
@pytest.mark.parametrize("name", CLIPS)
def test_real_clip_passes_and_its_canonical_form_is_the_same_clip(nano, speech_dir, tmp_path, name):
    asked = earmark.request(speech_dir / name)
    evidence = earmark.record(nano, asked, speech_dir / name)
    canonical = tmp_path / "canonical.flac"
    info = canonicalise_file(speech_dir / name, canonical)
    assert info.digest == asked.audio_digest
    verdict = earmark.verify(evidence, asked, canonical, nano, profile="provisional", receipt=evidence.receipt)
    assert (verdict.outcome, verdict.proves) == ("PASS", "committed"), verdict
    assert billed_tokens(info.seconds) >= info.seconds * 50


#: The longest recordings: 66 s of two Dutch speakers, and 95 s of dishes being washed.
LONG = {"watson/dutch_duo_sample_2-mono-BB.flac": 65, "noise/doing_the_dishes.flac": 95}


@pytest.mark.speech
@pytest.mark.parametrize("name", LONG)
def test_long_clip_is_cut_at_silence_and_covered(nano, speech_dir, name):
    audio = earmark.load_audio(speech_dir / name)
    assert audio.seconds > LONG[name]
    asked = earmark.request(audio)
    evidence = earmark.record(nano, asked, audio)
    edges = [(segment.start, segment.end) for segment in evidence.segments]
    assert edges[0][0] == 0
    assert edges[-1][1] == len(audio.samples)
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    assert max(end - start for start, end in edges) <= nano.info.window_samples
    assert earmark.verify(evidence, asked, audio, nano, profile="provisional").outcome == "PASS"


@pytest.mark.speech
def test_a_folder_of_recordings_goes_through_one_command(speech_dir, tmp_path, capsys):
    """A small folder here; `docs/explanation/statistics.md` has the figures for all 568 files."""
    folder = speech_dir / "cards"
    assert main(["record", "embedded:whisper-nano", str(folder), "--out", str(tmp_path), "--language", "en"]) == 0
    arguments = ["verify", str(tmp_path), "--model", "embedded:whisper-nano", "--audio", str(folder)]
    assert main([*arguments, "--profile", "provisional"]) == 0
    assert "5 PASS" in capsys.readouterr().out
