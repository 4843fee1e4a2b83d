"""Text alone: a cheat that changes the text is found, nothing ever passes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import earmark
from earmark import Clip, TextSegment, record_many
from earmark.errors import AudioFileNotFoundError, UsageError
from earmark.fingerprint.text import split_text, word_statistics
from earmark.records.request import Decoding


def _codes(verdict):
    return [finding.code for finding in verdict.findings if finding.severity != "note"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_honest_text_is_inconclusive_in_every_setting(clips, dtype):
    reference = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype, arithmetic="float32")
    provider = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype, attention="eager")
    for size in (1, 8):
        for evidence, clip in zip(record_many(provider, clips[:8], batch_size=size), clips, strict=False):
            verdict = earmark.verify_text(evidence.text, clip.request, clip.audio, reference)
            assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["text.only"])


CHEATS = {
    "another clip's text": lambda texts, i: texts[i - 1],
    "a word more": lambda texts, i: texts[i] + " lamp",
    "the last word left out": lambda texts, i: " ".join(texts[i].split()[:-1]),
    "the first word left out": lambda texts, i: " ".join(texts[i].split()[1:]),
    "two words swapped": lambda texts, i: " ".join([*texts[i].split()[:-2], *texts[i].split()[:-3:-1]]),
    "nothing": lambda _texts, _i: "",
    "control tokens": lambda texts, i: texts[i] + "<|endoftext|>",
    "far too long": lambda texts, i: " ".join(texts[i : i + 1] * 40),
}


@pytest.mark.parametrize("name", CHEATS)
def test_changed_text_fails(nano, clips, honest, name):
    texts = [evidence.text for evidence in honest]
    for i in range(4):
        clip = clips[i]
        verdict = earmark.verify_text(CHEATS[name](texts, i), clip.request, clip.audio, nano)
        assert (verdict.outcome, _codes(verdict)) == ("FAIL", ["text.margin"]), name


def test_absurd_length_is_refused_before_any_replay(nano, clips, monkeypatch):
    monkeypatch.setattr(type(nano), "encode", None)
    verdict = earmark.verify_text("word " * 10_000, clips[0].request, clips[0].audio, nano)
    assert _codes(verdict) == ["text.too_long"]


def test_a_cheap_models_text_fails_where_it_differs(nano, early, clips, honest):
    cheap = [evidence.text for evidence in record_many(early, clips)]
    differs = [text != real.text for text, real in zip(cheap, honest, strict=True)]
    assert any(differs)
    for text, clip, other in zip(cheap, clips, differs, strict=True):
        verdict = earmark.verify_text(text, clip.request, clip.audio, nano)
        assert verdict.outcome == ("FAIL" if other else "INCONCLUSIVE")


def test_case_and_punctuation_are_no_proof_of_a_cheat(nano, clips, honest):
    text = honest[0].text.capitalize() + "."
    verdict = earmark.verify_text(text, clips[0].request, clips[0].audio, nano)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["text.normalised", "text.only"])


def test_post_processed_text_never_fails(nano, clips, honest):
    text = honest[2].text.replace("eighty four percent", "84%")
    assert text != honest[2].text
    asked = (clips[2].request, clips[2].audio, nano)
    assert earmark.verify_text(text, *asked).outcome == "FAIL"
    verdict = earmark.verify_text(text, *asked, raw=False)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["text.only"])
    assert "text.margin" in [f.code for f in verdict.findings]


def test_reported_averages_are_compared(nano, clips, honest):
    """As in interfaces that give one average per segment; the first is the model's own, the second another's."""
    family, clip = earmark.loading.family_of(nano), clips[1]
    scores = family.read(honest[1].segments[0], clip.request, nano, "scores").scores
    mean = float(scores.chosen.mean())
    for value, outcome in ((mean, "INCONCLUSIVE"), (mean - 0.2, "FAIL")):
        given = [TextSegment(text=honest[1].text, mean_logprob=value)]
        verdict = earmark.verify_text(given, clip.request, clip.audio, nano)
        assert verdict.outcome == outcome
        assert ("text.mean_logprob" in _codes(verdict)) == (outcome == "FAIL")


@pytest.fixture(scope="module")
def long_clip(nano, clips):
    audio = earmark.audio.from_samples(np.concatenate([clip.audio.samples for clip in clips[:6]]), 16_000)
    clip = Clip(audio=audio, request=earmark.request(audio, language="en"))
    return clip, earmark.record(nano, clip.request, audio)


@pytest.mark.parametrize(("given", "code"), [("one \ud800 two", "text.malformed"), (["one", "two"], "text.segments")])
def test_texts_that_fit_no_clip_are_the_providers_fault(nano, clips, given, code):
    verdict = earmark.verify_text(given, clips[0].request, clips[0].audio, nano)
    assert (verdict.outcome, verdict.fault, _codes(verdict)) == ("INCONCLUSIVE", "provider", [code])


def test_one_text_for_many_segments_is_cut_where_they_meet(nano, long_clip):
    clip, evidence = long_clip
    texts = [segment.text for segment in evidence.segments]
    assert len(texts) > 1
    for given in (evidence.text, texts):
        assert _codes(earmark.verify_text(given, clip.request, clip.audio, nano)) == ["text.only"]
    cut = " ".join(evidence.text.split()[3:])
    verdict = earmark.verify_text(cut, clip.request, clip.audio, nano)
    assert verdict.outcome == "FAIL"
    assert verdict.fingerprint["missing_words"] > 0
    assert _codes(earmark.verify_text(texts[1:], clip.request, clip.audio, nano)) == ["text.segments"]


def test_beam_search_is_judged_by_its_likelihood(nano, clips):
    decoding = Decoding(strategy="beam", beams=3)
    asked = earmark.request(clips[0].audio, language="en", decoding=decoding)
    own = earmark.record(nano, asked, clips[0].audio).text
    assert _codes(earmark.verify_text(own, asked, clips[0].audio, nano)) == ["text.only"]
    verdict = earmark.verify_text(own + " lamp", asked, clips[0].audio, nano)
    assert _codes(verdict) == ["text.likelihood"]
    assert np.isnan(verdict.fingerprint["margin_max"])


def test_other_audio_than_requested_decides_nothing(nano, clips, honest):
    verdict = earmark.verify_text(honest[0].text, clips[1].request, clips[0].audio, nano)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["audio.mismatch"])
    with pytest.raises(AudioFileNotFoundError):
        earmark.verify_text("words", None, "no-such-file.wav", nano)


def test_a_family_that_cannot_is_named(nano, clips, monkeypatch):
    monkeypatch.setattr("earmark.text_only.family_of", lambda _: SimpleNamespace(name="silent"))
    with pytest.raises(UsageError, match="cannot score plain text"):
        earmark.verify_text("words", None, clips[0].audio, nano)


@pytest.mark.parametrize(
    ("text", "pieces", "parts"),
    [
        ("a b c d", ["a b", "c d"], ["a b", "c d"]),
        ("a x c d", ["a b", "c d"], ["a x", "c d"]),
        ("c d", ["a b", "c d"], ["", "c d"]),
        ("a b", ["a b", "c d"], ["a b", ""]),
        ("a b c d", ["a b", "", "c d"], ["a b", "", "c d"]),
        ("", ["a b", "c d"], ["", ""]),
        ("x y", ["a b", "c d"], ["x y", ""]),
    ],
)
def test_split_text(text, pieces, parts):
    assert split_text(text, pieces) == parts


def test_words_are_counted_without_case_and_marks():
    assert word_statistics("Set the radio.", "set the radio") == {
        "missing_words": 0.0,
        "added_words": 0.0,
        "rate_distance": 0.0,
    }


def test_json_of_a_provider_is_read(tmp_path):
    from earmark.cli.texts import find_texts

    path = tmp_path / "a.flac.json"
    path.write_text(json.dumps({"segments": [{"text": " one", "avg_logprob": -0.5, "id": 0}, {"text": "two"}]}))
    (given,) = find_texts([str(path)])
    assert given.text == [TextSegment(text=" one", mean_logprob=-0.5), TextSegment(text="two")]
    assert given.place.name == "a.flac"
