"""Bundles: one machine's recordings, held against another's model; here both are this one."""

from __future__ import annotations

import getpass
import json
import platform
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest

import earmark
from earmark.bundles import BUNDLE_FILE, STATES_FILE, difference, elsewhere, load_bundle, load_states, make_bundle
from earmark.cli import main
from earmark.errors import RecordError, UsageError
from earmark.scenarios import scenario
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
    assert "0 of 2 honest clips accused" in capsys.readouterr().out
    twin = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (part,) = twin["parts"]
    assert [own["honest"] for own in part["detections"]] == [True] * 3
    assert part["detections"][-1]["scenario"].startswith("elsewhere (cpu")
    facts = {name.partition(": ")[2]: value for name, value in twin["provenance"]}
    assert float(facts["encoder states, largest relative difference"]) < 1e-5
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
    header = (bundle / BUNDLE_FILE).read_text(encoding="utf-8")
    assert getpass.getuser() == "root" or getpass.getuser() not in header


def test_states_tell_networks_apart(bundle):
    states = load_states(bundle)
    assert {name.partition("/")[0] for name in states} == {"0", "1"}
    assert difference(states, states) == 0.0
    moved = {name: (own * 1.01).astype(np.float32) for name, own in states.items()}
    assert difference(states, moved) == pytest.approx(0.01, rel=1e-3)
    assert np.isnan(difference(states, {}))


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
    (tmp_path / STATES_FILE).write_bytes(b"nonsense")
    with pytest.raises(RecordError, match="encoder states"):
        load_states(tmp_path)
    (tmp_path / BUNDLE_FILE).write_text(json.dumps(header))
    with pytest.raises(UsageError, match="existing file"):
        elsewhere(tmp_path).record(reference, [SAMPLES[0].clip()])
    other = Sample(name="x", audio=CLIPS / "05.flac").clip()
    with pytest.raises(UsageError, match="no evidence of the audio"):
        elsewhere(bundle).record(reference, [other])


@pytest.mark.parametrize(("samples", "level"), [([], "scores"), (SAMPLES, "compact")])
def test_bundles_without_numbers_are_refused(reference, tmp_path, samples, level):
    with pytest.raises(UsageError, match="a bundle holds one or more"):
        make_bundle(reference, samples, tmp_path / "b", level=level)
    assert not (tmp_path / "b").exists()


def test_the_header_comes_back_as_it_was(bundle):
    made = load_bundle(bundle)
    assert msgspec.msgpack.decode(made.to_msgpack(), type=type(made)) == made
    assert made.machine.startswith("cpu")
