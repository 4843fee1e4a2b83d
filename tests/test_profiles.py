"""A profile is kept, found, read back strictly, and judges."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from made_profiles import CHANNELS, FEW, calibrated, honest_run

import earmark
from earmark.calibrate import calibrate
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.profiles import PROFILE_FILE, SCORES_FILE, find_profile, load_profile
from earmark.scenarios import scenario


@pytest.fixture(scope="module")
def profile():
    return calibrate(honest_run(3500), CHANNELS)


def test_saved_and_loaded(profile, tmp_path):
    profile.save(tmp_path / "p")
    again = load_profile(tmp_path / "p")
    assert again.header == profile.header
    assert np.array_equal(again.scores, profile.scores)
    assert again.bets() == profile.bets()


def test_bets_at_what_is_asked_for(profile):
    asked = profile.bets(rate=0.01, tolerance=1.0)
    assert asked.rate == 0.01
    assert asked.rates < profile.bets(rate=0.01).rates, "without tolerance for drift"
    for wrong in ({"rate": 0.0}, {"rate": 1.0}, {"tolerance": 0.0}, {"tolerance": 0.5}):
        with pytest.raises(UsageError, match="expected"):
            profile.bets(**wrong)


def test_a_profile_of_an_earlier_version_says_less_of_its_origin(profile, tmp_path):
    made = calibrate(honest_run(300), CHANNELS, shares=FEW, facts={"cpu": "AVX2", "command": "earmark calibrate m"})
    made.save(tmp_path)
    assert load_profile(tmp_path).header.provenance.items() >= {("cpu", "AVX2"), ("command", "earmark calibrate m")}
    assert not {"cpu", "command", "clips_digest"} & profile.header.provenance.keys()
    profile.save(tmp_path)
    assert load_profile(tmp_path).header == profile.header


def test_damaged_profiles_are_refused(profile, tmp_path):
    profile.save(tmp_path)
    header = json.loads((tmp_path / PROFILE_FILE).read_text())
    for change, message in (
        ({"format": "earmark.profile/9"}, "profile/9"),
        ({"width": [0.0, 1.0]}, "widths above 0"),
        ({"channels": ["distance"]}, "one finite number per channel"),
        ({"rate": 1e-6}, "allow 0.00067"),
        ({"surprise": 1}, "surprise"),
    ):
        (tmp_path / PROFILE_FILE).write_text(json.dumps(header | change))
        with pytest.raises(RecordError, match=message):
            load_profile(tmp_path)
    (tmp_path / PROFILE_FILE).write_text(json.dumps(header))
    (tmp_path / SCORES_FILE).write_bytes(b"\x08" + b"\0" * 40)
    with pytest.raises(RecordError, match="no scores"):
        load_profile(tmp_path)
    (tmp_path / SCORES_FILE).unlink()
    with pytest.raises(UsageError, match=r"scores\.safetensors"):
        load_profile(tmp_path)


def test_profile_of_another_model_or_version(profile, nano):
    with pytest.raises(UsageError, match="expected one of embedded:whisper-nano"):
        profile.check_fits(nano.info)
    other = Fingerprint("ctc", CHANNELS, (1.0, 0.0), version=999)
    with pytest.raises(UsageError, match="version 999"):
        profile.judge(other)


def test_a_profile_that_cannot_be_read_is_named(nano, tmp_path, monkeypatch):
    """Nothing is found then, and why not is said."""
    calibrated(nano).save(tmp_path / "mine")
    monkeypatch.setenv("EARMARK_PROFILES", str(tmp_path))
    assert find_profile(nano.info, "greedy", "scores").header.development == 100
    (tmp_path / "mine" / PROFILE_FILE).write_text("{}")
    with pytest.warns(UserWarning, match="mine is left out: .*format"):
        find_profile(nano.info, "greedy", "scores")


def test_found_by_weights_precision_decoding_and_level(profile, nano, tmp_path, monkeypatch):
    info = dataclasses.replace(nano.info, weights="0" * 64)
    monkeypatch.setenv("EARMARK_PROFILES", str(tmp_path))
    assert find_profile(info, "greedy", "scores") is None
    profile.save(tmp_path / "one")
    assert find_profile(info, "greedy", "scores").header == profile.header
    assert find_profile(info, "greedy", "sketch") is None, "nobody would look at the hidden states"
    sketches = dataclasses.replace(profile, header=msgspec.structs.replace(profile.header, level="sketch"))
    sketches.save(tmp_path / "a-first")
    assert find_profile(info, "greedy", "scores").header == profile.header, "the very level comes first"
    assert find_profile(info, "greedy", "sketch").header == sketches.header
    (tmp_path / "one" / PROFILE_FILE).unlink()
    assert find_profile(info, "greedy", "scores").header == sketches.header
    assert find_profile(info, "greedy", "compact") is None
    assert find_profile(dataclasses.replace(info, precision="bf16"), "greedy", "scores") is None


def test_verify_judges_by_a_profile(nano, clips, tmp_path, monkeypatch):
    """PASS with a p-value for honest evidence, FAIL for int4, by object, by folder, and found by itself."""
    profile = calibrated(nano)
    profile.save(tmp_path / "nano")
    cheat = scenario("quantise", bits=4, group=64).record(nano, clips[:1])[0]
    honest_ = earmark.record(nano, clips[0].request, clips[0].audio)
    monkeypatch.setenv("EARMARK_PROFILES", str(tmp_path))
    for given in (profile, tmp_path / "nano", None):
        good, bad = (earmark.verify(e, clips[0].request, clips[0].audio, nano, profile=given) for e in (honest_, cheat))
        assert (good.outcome, bad.outcome) == ("PASS", "FAIL")
        assert good.p_value > profile.header.rate >= bad.p_value == 1 / 301
        assert "statistics.profile" in [finding.code for finding in bad.findings]
        assert good.profile == profile.name


def test_verify_without_a_fitting_profile(nano, clips, tmp_path, monkeypatch):
    """No profile keeps the question open and says what to do; one of another model or decoding does not judge."""
    evidence, (clip, *_) = earmark.record(nano, clips[0].request, clips[0].audio), clips
    monkeypatch.setattr("earmark.judging.find_profile", lambda *_: None)
    for given in (None, "rules"):
        verdict = earmark.verify(evidence, clip.request, clip.audio, nano, profile=given)
        assert verdict.outcome == "INCONCLUSIVE"
        assert [f.code for f in verdict.findings] == ["profile.missing"]
    beams = earmark.verify(evidence, clip.request, clip.audio, nano, profile=calibrated(nano, strategy="beam"))
    assert [f.code for f in beams.findings] == ["profile.decoding"]
    few = earmark.verify(evidence, clip.request, clip.audio, nano, profile=calibrated(nano, least_positions=999))
    assert (few.outcome, [f.code for f in few.findings]) == ("INCONCLUSIVE", ["positions.few"])
    with pytest.raises(UsageError, match="expected one of"):
        earmark.verify(evidence, clip.request, clip.audio, nano, profile=calibrated(nano, weights="1" * 64))
    with pytest.raises(UsageError, match="calibrate` again"):
        earmark.verify(evidence, clip.request, clip.audio, nano, profile=calibrated(nano, fingerprint_version=99))
    with pytest.raises(UsageError, match=r"profile\.json"):
        earmark.verify(evidence, clip.request, clip.audio, nano, profile=str(tmp_path))
