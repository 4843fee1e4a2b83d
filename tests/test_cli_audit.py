"""`earmark audit` and `earmark calibrate` on the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_profiles import calibrated, row
from rich.console import Console

from earmark import Case, audit_log
from earmark.audit_log import records_digest
from earmark.calibrate import channels_of
from earmark.cli import calibration, main, show
from earmark.cli.files import find_audio
from earmark.cli.origin import clips_digest, command_of
from earmark.loading import family_of
from earmark.profiles import load_profile
from earmark.runs import Run
from earmark.study import Sample

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:whisper-nano"


def test_digests_of_records_are_bounded(tmp_path, monkeypatch):
    """What is read of a file is what a record may hold at most; a folder and a pipe are read as none."""
    file = tmp_path / "x"
    file.write_bytes(b"a" * 99)
    monkeypatch.setattr(audit_log, "BLOCK", 16)
    empty, whole = (records_digest(Case(evidence=given, audio="")) for given in (None, file))
    assert whole == records_digest(Case(evidence=b"a" * 99, audio=""))
    monkeypatch.setattr(audit_log, "MAX_RECORD_BYTES", 39)
    assert records_digest(Case(evidence=file, audio="")) == records_digest(Case(evidence=b"a" * 40, audio=""))
    os.mkfifo(tmp_path / "pipe")
    assert {records_digest(Case(evidence=tmp_path / name, audio="")) for name in ("pipe", "", "gone")} == {empty}


def test_audit_shows_every_clip_and_its_decision(recorded, nano, tmp_path, capsys):
    calibrated(nano).save(tmp_path / "profile")
    places = [flag for name in ("--audio", "--request", "--receipt") for flag in (name, str(recorded))]
    words = ["audit", str(recorded), "--model", MODEL, "--profile", str(tmp_path / "profile"), *places]
    capsys.readouterr()
    code = main([*words, "--log", str(tmp_path / "log.jsonl"), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("outcome") for row in rows[:2]] == ["PASS", "PASS"]
    assert rows[2]["decision"] == "INCONCLUSIVE", "two clips are too few to pass a provider"
    assert 0 < rows[2]["undetectable_share"] < 0.2
    assert rows[2]["not_counted"] == {"length": 0, "budget": 0, "input": 0, "verifier": 0}
    assert (rows[2]["not_counted_but_fail"], rows[2]["not_verified"]) == (0, 0)
    assert code == 2
    assert main([*words, "--log", str(tmp_path / "log.jsonl")]) == 2, "nothing is left to verify"
    assert "clips" in capsys.readouterr().out


def test_an_audit_says_how_many_clips_did_not_count(recorded, nano, tmp_path, run):
    """By reason, in the table as in JSON, and the power is that of those that did."""
    lengths = sorted(soundfile.info(recorded / name).duration for name in ("00.flac", "01.flac"))
    calibrated(nano, seconds=(sum(lengths) / 2, 60.0)).save(tmp_path / "profile")
    words = ["audit", recorded, "--model", MODEL, "--profile", tmp_path / "profile", "--log", tmp_path / "log"]
    facts = json.loads(run(*words, "--json")[1].splitlines()[-1])
    assert (facts["clips"], facts["not_counted"]["length"]) == (1, 1)
    out = run(*words)[1]
    assert "1 (length 1)" in out


def test_the_bar_of_an_audit_shows_speed_and_e_value(recorded, nano, tmp_path, monkeypatch):
    """And what a restarted audit finds in its log: nothing of it is fast, but all of it is done."""
    calibrated(nano).save(tmp_path / "profile")
    places = [flag for name in ("--audio", "--request", "--receipt") for flag in (name, str(recorded))]
    words = ["audit", str(recorded), "--model", MODEL, "--profile", str(tmp_path / "profile"), *places]
    log, shown = tmp_path / "log.jsonl", []
    for _ in range(2):
        screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=160)
        monkeypatch.setattr(show, "err", lambda screen=screen: screen)
        assert main([*words, "--log", str(log)]) == 2
        shown.append(screen.file.getvalue())
    log_e = json.loads(log.read_text().splitlines()[-1])["log_e"]
    for text in shown:
        assert "2/2" in text
        assert f"e {np.exp(log_e):.2g} " in text
    assert "0/2" in shown[0]
    assert "0/2" not in shown[1]
    assert {line.split(" clips/s")[0].split()[-1] for line in shown[1].split("\r") if "clips/s" in line} == {"0"}


def test_large_e_values_are_short(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=160)
    monkeypatch.setattr(show, "err", lambda: screen)
    with show.betting("auditing", 3) as step:
        step(np.log(1234.0))
        step(1e6)
    assert "e 1e+304 " in screen.file.getvalue()


@pytest.fixture
def noises(tmp_path) -> Path:
    """Return a folder of 280 short clips, all of them different."""
    folder = tmp_path / "noises"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(280):
        soundfile.write(folder / f"{i:03}.wav", rng.integers(-9, 9, 3200).astype(np.int16), 16_000)
    return folder


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Measure clips without running the model; returns the names of all of them."""
    names: list[str] = []

    def study(reference, scenarios, samples, *_, **__):
        names.extend(sample.name for sample in samples)
        info, rng = reference.info, np.random.default_rng(0)
        facts = {"model": info.name, "weights": info.weights, "family": info.family, "precision": info.precision}
        channel = channels_of(family_of(reference))[0]
        return Run(
            row(each.name, own.name, (0.0, 0.0), **facts, statistics={channel: float(rng.exponential())})
            for own in scenarios
            for each in samples
        )

    monkeypatch.setattr(calibration, "study", study)
    return names


def test_a_profile_says_where_it_comes_from(noises, measured, tmp_path, monkeypatch):
    words = ["calibrate", MODEL, str(noises), f"--out={tmp_path / 'profile'}"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/earmark", *words])
    assert main(words) == 0
    assert len(measured) == 280
    origin = load_profile(tmp_path / "profile").header.provenance
    assert origin["command"] == f"earmark calibrate {MODEL} noises --out=profile"
    assert origin["clips_digest"] == clips_digest(find_audio([noises]))
    assert origin["cpu"]
    assert str(tmp_path) not in str(origin)


@pytest.mark.usefixtures("measured")
def test_rows_of_clips_that_were_not_given_count_for_nothing(noises, tmp_path, monkeypatch):
    """The run may hold them; the profile says that it is of the clips given."""
    of_given, others = calibration.study, [Sample(name=f"x{i}.wav", audio=noises) for i in range(700)]
    monkeypatch.setattr(calibration, "study", lambda m, s, given, *_, **__: of_given(m, s, [*given, *others]))
    assert main(["calibrate", MODEL, str(noises), f"--out={tmp_path / 'profile'}"]) == 0
    header = load_profile(tmp_path / "profile").header
    assert header.provenance["clips"] == "280"
    assert (header.development, header.held_out.clips) == (40, 120)


def test_the_digest_of_clips_knows_names_and_files(noises):
    found = find_audio([noises])
    before = clips_digest(found)
    assert clips_digest(found[::-1]) == before
    assert clips_digest(found[1:]) != before
    (noises / "000.wav").rename(noises / "x.wav")
    renamed = clips_digest(find_audio([noises]))
    (noises / "x.wav").write_bytes((noises / "001.wav").read_bytes())
    assert len({before, renamed, clips_digest(find_audio([noises]))}) == 3


def test_paths_of_a_command_that_are_relative_stay():
    assert command_of(["report", "a/b", "--x", "/c/d=e/f"]) == "earmark report a/b --x f"


def test_copies_of_a_clip_are_refused_before_anything_is_measured(noises, measured, tmp_path, capsys):
    """A copy of the file, and the same samples in another format."""
    shutil.copy(noises / "003.wav", noises / "copy.wav")
    soundfile.write(noises / "again.flac", soundfile.read(noises / "003.wav", dtype="int16")[0], 16_000)
    capsys.readouterr()
    assert main(["calibrate", MODEL, str(noises), "--out", str(tmp_path / "profile")]) == 3
    err = capsys.readouterr().err
    assert "003.wav and again.flac hold equal audio; 2 of 282 clips are copies" in err
    assert measured == []


@pytest.mark.parametrize("level", ["foo", "text"])
def test_a_calibration_at_a_level_that_is_not_recorded_is_refused(noises, measured, tmp_path, capsys, level):
    capsys.readouterr()
    assert main(["calibrate", MODEL, str(noises), "--out", str(tmp_path / "profile"), "--level", level]) == 3
    err = capsys.readouterr().err.strip()
    assert f"level '{level}'; expected one that the " in err
    assert "\n" not in err
    assert measured == []


@pytest.mark.usefixtures("measured")
def test_a_profile_in_this_folder(noises, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["calibrate", MODEL, str(noises), "--out", "."]) == 0
    assert load_profile(tmp_path / "here").header.provenance["clips"] == "280"


@pytest.mark.parametrize("option", ["--rate", "--tolerance"])
def test_an_audit_at_rate_or_tolerance_0_is_refused(recorded, nano, tmp_path, capsys, option):
    calibrated(nano).save(tmp_path / "profile")
    words = ["audit", str(recorded), "--model", MODEL, "--profile", str(tmp_path / "profile"), "--audio", str(recorded)]
    capsys.readouterr()
    assert main([*words, "--log", str(tmp_path / "log"), option, "0"]) == 3
    assert f"a {option[2:]} of 0; expected" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["calibrate", MODEL, str(CLIPS), "--out", "OUT", "--rate", "1e-3"],
            "a rate of 0.001 needs 2330 clips; 24 were given",
        ),
        (["calibrate", MODEL, str(CLIPS), "--out", "OUT"], "a calibration needs 137 clips; 24 were given"),
        (
            ["study", "embedded:parakeet-ctc-nano", str(CLIPS), "--out", "OUT", "--level", "listed"],
            "level 'listed'; expected one that the ctc family records: scores, sketch, compact",
        ),
        (["calibrate", MODEL, str(CLIPS), "--out", "/"], "--out /; expected a folder of its own"),
        (["study", MODEL, str(CLIPS), "--out", "OUT", "--level", "foo"], "level 'foo'; expected one that the autoreg"),
        (
            ["study", MODEL, str(CLIPS), "--out", "OUT", "--level", "text"],
            "level 'text'; expected one that the autoreg",
        ),
        (["calibrate", MODEL, str(CLIPS), "--out", "OUT", "--rate", "7"], "between 0 and 1"),
        (
            ["calibrate", MODEL, str(CLIPS), "--out", "OUT", "--level", "compact", "--recipe", "int8"],
            "the recipe int8 at the level compact, which shows no lists",
        ),
        (["audit", str(CLIPS), "--model", MODEL, "--log", "OUT"], "evidence.msgpack"),
    ],
)
def test_refused_in_one_line(words, message, tmp_path, capsys):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    capsys.readouterr()
    assert main(words) == 3
    err = capsys.readouterr().err.strip()
    assert message in err
    assert err.startswith("earmark: ")
    assert "\n" not in err


def test_audit_needs_a_profile(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EARMARK_PROFILES", "")
    words = ["audit", str(recorded), "--model", "embedded:whisper-nano-early", "--log", str(tmp_path / "log")]
    assert main([*words, "--audio", str(recorded)]) == 3
    assert "earmark calibrate" in capsys.readouterr().err
