"""`earmark audit` and `earmark calibrate` on the command line."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from made_profiles import calibrated

from earmark.cli import main

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:whisper-nano"


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
    assert code == 2
    assert main([*words, "--log", str(tmp_path / "log.jsonl")]) == 2, "nothing is left to verify"
    assert "clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calibrate", MODEL, str(CLIPS), "--out", "OUT", "--rate", "1e-3"], "needs 2332 clips; 24 were given"),
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
