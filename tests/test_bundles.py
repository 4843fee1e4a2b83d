"""Bundles: one machine's recordings, held against another's model; here both are this one."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import platform
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers.audio_utils import mel_filter_bank

import earmark
from earmark.bundles import BUNDLE_FILE, STAGES_FILE, Recorded, elsewhere, hold_against, load_bundle, make_bundle
from earmark.cli import main
from earmark.errors import RecordError, UsageError
from earmark.loading import family_of
from earmark.scenarios import scenario
from earmark.stages import POSITIONS, difference, load_tensors, parting
from earmark.study import Sample

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:parakeet-ctc-nano"
SAMPLES = [Sample(name=f"{i:02}.flac", audio=CLIPS / f"{i:02}.flac") for i in range(2)]


@pytest.fixture(scope="module")
def reference():
    return earmark.load(MODEL, device="cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that the command made."""
    folder = tmp_path_factory.mktemp("elsewhere") / "bundle"
    words = ["record", MODEL, str(CLIPS / "00.flac"), str(CLIPS / "01.flac"), "--bundle", str(folder)]
    assert main([*words, "--language", "en", "--device", "cpu"]) == 0
    return folder


def test_it_passes_on_the_other_machine(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", MODEL, str(bundle), str(CLIPS), "--out", "report.html", "--device", "cpu", "--examples", "1"]
    assert main(words) == 0
    assert "passed on 2 of 2 clips" in capsys.readouterr().out
    twin = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (part,) = twin["parts"]
    assert [own["honest"] for own in part["detections"]] == [True] * 3
    assert part["detections"][-1]["scenario"].startswith("elsewhere (cpu")
    facts = {name.partition(": ")[2]: value for name, value in twin["provenance"]}
    assert facts["stages"] == "the machines agree at every stage"
    assert facts["stage audio"] == "audio: 0 clips, honest up to 0"
    assert facts["elsewhere, processor"] == facts["here, processor"] == platform.machine()


def test_another_network_elsewhere_is_found(reference, bundle, tmp_path):
    (made,) = scenario("quantise", bits=8).record(reference, [SAMPLES[0].clip()])
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made.save(tmp_path / "0.evidence.msgpack")
    clips = [sample.clip() for sample in SAMPLES]
    cases = [
        earmark.Case(evidence=e, audio=c.audio, request=c.request, receipt=e.receipt)
        for e, c in zip(elsewhere(tmp_path).record(reference, clips), clips, strict=True)
    ]
    outcomes = [verdict.outcome for verdict in earmark.verify_many(cases, reference, profile="provisional")]
    assert outcomes == ["FAIL", "PASS"]


def test_nothing_private_is_in_it(bundle):
    data = b"".join(file.read_bytes() for file in bundle.iterdir())
    for word in (platform.node(), str(Path.home()), str(CLIPS), str(bundle), "/tmp/"):  # noqa: S108
        assert len(word) < 4 or word.encode() not in data
    assert b"fLaC" not in data
    assert not any(sample.name.encode() in data for sample in SAMPLES)
    header = (bundle / BUNDLE_FILE).read_text(encoding="utf-8")
    assert getpass.getuser() == "root" or getpass.getuser() not in header


def _parted(reference, folder, samples=SAMPLES):
    """Return the names of the stages at which a bundle and this machine differ."""
    return [stage.name for stage in hold_against(reference, folder, samples) if stage.parted]


def test_a_machine_agrees_with_itself(reference, bundle):
    stages = hold_against(reference, bundle, SAMPLES)
    assert [stage.name for stage in stages] == ["audio", "features", "encoder", "log-probabilities"]
    assert all(stage.difference < 1e-4 for stage in stages)
    assert parting(stages) == "the machines agree at every stage"
    tensors = load_tensors(bundle / STAGES_FILE)
    assert {name.partition("/")[0] for name in tensors} == {"0", "1"}
    assert {own.shape for name, own in tensors.items() if name.endswith("/features")} == {(POSITIONS, 80)}


def test_another_mel_filter_is_named_at_the_features(reference, tmp_path):
    other = earmark.load(MODEL, device="cpu")
    bank = mel_filter_bank(257, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="htk")
    other.extractor.mel_filters = torch.as_tensor(bank, dtype=torch.float32).T
    make_bundle(other, SAMPLES, tmp_path)
    assert _parted(reference, tmp_path) == ["features", "encoder", "log-probabilities"]
    assert parting(hold_against(reference, tmp_path, SAMPLES)).startswith("the machines part ways at the features: 0.")


def test_an_int8_encoder_is_named_at_the_encoder(reference, tmp_path):
    make_bundle(scenario("quantise", bits=8).alternative(reference), SAMPLES, tmp_path)
    assert _parted(reference, tmp_path) == ["encoder", "log-probabilities"]


def test_another_head_is_named_at_the_log_probabilities(reference, tmp_path):
    (evidence,) = scenario("quantise", bits=4).record(reference, [SAMPLES[0].clip()])
    make_bundle(reference, SAMPLES[:1], tmp_path)
    evidence.save(tmp_path / "0.evidence.msgpack")
    assert _parted(reference, tmp_path) == ["log-probabilities"]


def test_other_audio_is_named_at_the_audio(reference, bundle, tmp_path, monkeypatch, capsys):
    moved = [Sample(name="00.flac", audio=CLIPS / "05.flac"), SAMPLES[1]]
    stages = hold_against(reference, bundle, moved)
    assert (stages[0].parted, stages[0].difference) == (True, 1.0)
    assert stages[-1].difference < 1e-4  # of the clip that is the same
    (tmp_path / "00.flac").write_bytes((CLIPS / "05.flac").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["compare", MODEL, str(bundle), "00.flac", "--out", "report.html", "--device", "cpu"]) == 3
    assert "the machines part ways at the audio: all 1 digests differ" in capsys.readouterr().err


def test_a_missing_stage_is_no_agreement(reference, bundle, tmp_path):
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_tensors(bundle / STAGES_FILE)
    save_file({name: own for name, own in tensors.items() if "encoder" not in name}, tmp_path / STAGES_FILE)
    assert _parted(reference, tmp_path) == ["encoder"]
    nothing = hold_against(reference, bundle, [])
    assert parting(nothing).startswith("the machines agree at no stage; nothing to compare at audio, features,")


def test_bundles_of_other_models_or_clips_are_refused(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--out", "report.html", "--device", "cpu"]
    assert main(["compare", "embedded:parakeet-tdt-nano", str(bundle), str(CLIPS), *words]) == 3
    assert "the bundle is of embedded:parakeet-ctc-nano" in capsys.readouterr().err
    assert main(["compare", MODEL, str(bundle), str(CLIPS / "05.flac"), *words]) == 3
    assert "none of the 1 clips is in the bundle" in capsys.readouterr().err


def test_damaged_bundles_are_refused(bundle, tmp_path, reference):
    header = json.loads((bundle / BUNDLE_FILE).read_text(encoding="utf-8"))
    for change in ({"more": 1}, {"clips": []}, {"clips": [{"clip": "a", "audio": "0" * 64, "evidence": "../x"}]}):
        (tmp_path / BUNDLE_FILE).write_text(json.dumps({**header, **change}))
        with pytest.raises(RecordError):
            load_bundle(tmp_path)
    (tmp_path / BUNDLE_FILE).write_text(json.dumps(header))
    with pytest.raises(UsageError, match="existing file"):
        elsewhere(tmp_path).record(reference, [SAMPLES[0].clip()])
    other = Sample(name="x", audio=CLIPS / "05.flac").clip()
    with pytest.raises(UsageError, match="no evidence of the audio"):
        elsewhere(bundle).record(reference, [other])


def test_a_clip_that_is_listed_twice_is_refused(reference, bundle, tmp_path):
    """Each listed clip is decoded: one name listed many times would cost as many decodings."""
    header = json.loads((bundle / BUNDLE_FILE).read_text(encoding="utf-8"))
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / BUNDLE_FILE).write_text(json.dumps({**header, "clips": header["clips"] + header["clips"][:1] * 50}))
    with pytest.raises(RecordError, match="lists 52 clips, of which 2 differ"):
        hold_against(reference, tmp_path, SAMPLES)
    with pytest.raises(UsageError, match=r"2 clips are named '00\.flac'"):
        make_bundle(reference, [SAMPLES[0], SAMPLES[1], SAMPLES[0]], tmp_path / "b")


def test_who_guesses_a_name_can_confirm_it(bundle):
    """The documented weakness: the nonce is a digest without a salt."""
    guess = hashlib.sha256(b"00.flac").hexdigest()[:32]
    assert guess in {own.clip for own in load_bundle(bundle).clips}
    assert "can confirm the guess" in " ".join((Recorded.__doc__ or "").split())


TABLE = np.zeros((POSITIONS, 4), np.float32)


@pytest.mark.parametrize("names", [("0/features", "1/features"), ("1/features", "0/features")])
def test_a_nan_of_ours_is_no_agreement(names):
    broken, sound = names
    ours = {broken: np.full_like(TABLE, np.nan), sound: TABLE + 1}
    theirs = dict.fromkeys(names, TABLE + 1)
    assert difference(ours, theirs, "features") == math.inf
    assert difference(ours, {**theirs, sound: TABLE}, "features") == math.inf


def test_a_replay_that_is_no_number_is_no_agreement(reference, bundle, monkeypatch):
    family = type(family_of(reference))
    seen = family.coordinates
    monkeypatch.setattr(family, "coordinates", lambda *given: (seen(*given)[0], np.full_like(seen(*given)[1], np.nan)))
    assert _parted(reference, bundle) == ["log-probabilities"]


@pytest.mark.parametrize(
    "tensors",
    [
        {"0/features": np.full_like(TABLE, np.nan)},
        {"0/features": TABLE.astype(np.float64)},
        {"0/features": np.zeros((POSITIONS + 1, 4), np.float32)},
        {"0/features": TABLE[0]},
        {"9/features": TABLE},
        {"0/else": TABLE},
        {f"0/encoder-{i}": TABLE for i in range(10)},
    ],
)
def test_strange_tensors_are_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / STAGES_FILE)
    with pytest.raises(RecordError, match="other features and encoder states"):
        load_tensors(tmp_path / STAGES_FILE)


def test_nonsense_is_refused(tmp_path):
    (tmp_path / STAGES_FILE).write_bytes(b"nonsense")
    with pytest.raises(RecordError, match="holds no features"):
        load_tensors(tmp_path / STAGES_FILE)


@pytest.mark.parametrize(("samples", "level"), [([], "scores"), (SAMPLES, "compact")])
def test_bundles_without_numbers_are_refused(reference, tmp_path, samples, level):
    with pytest.raises(UsageError, match="a bundle holds one or more"):
        make_bundle(reference, samples, tmp_path / "b", level=level)
    assert not (tmp_path / "b").exists()


def test_the_header_comes_back_as_it_was(bundle):
    made = load_bundle(bundle)
    assert msgspec.msgpack.decode(made.to_msgpack(), type=type(made)) == made
    assert made.machine.startswith("cpu")
