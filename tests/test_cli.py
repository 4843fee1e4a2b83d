"""The command line: exit codes, one-line errors, JSON rows, nothing half written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:whisper-nano"
EARLY = "embedded:whisper-nano-early"


def _one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("earmark: ")
    assert "Traceback" not in err
    return lines[0]


# What works


def test_record_writes_evidence_receipt_and_request(recorded):
    names = {p.name for p in recorded.iterdir()}
    for clip in ("00.flac", "01.flac"):
        assert {f"{clip}.{kind}.json" for kind in ("evidence", "receipt", "request")} <= names


def test_verify_many_passes(run, recorded):
    code, out, _ = run(
        "verify", recorded, "--model", MODEL, "--request", recorded, "--receipt", recorded, "--profile", "provisional"
    )
    assert code == 0
    assert "2 PASS, 0 FAIL, 0 INCONCLUSIVE" in out


def test_verify_json_rows_have_every_field(run, recorded):
    evidence = recorded / "00.flac.evidence.json"
    code, out, _ = run("verify", evidence, "--model", MODEL, "--profile", "provisional", "--json")
    row = json.loads(out)
    assert code == 0
    assert {"evidence", "outcome", "proves", "p_value", "e_value", "provenance", "findings", "fingerprint"} <= set(row)
    assert row["evidence"] == str(evidence)
    assert row["proves"] == "reconstructable"
    assert row["fingerprint"]["logprob_l1"] < 1e-4


def test_verify_one_prints_five_lines(run, recorded):
    code, out, _ = run("verify", recorded / "00.flac.evidence.json", "--model", MODEL, "--profile", "provisional")
    assert code == 0
    assert len(out.strip().splitlines()) == 5
    assert out.startswith("PASS (proves: reconstructable)")


def test_the_calibrated_profile_is_found_by_itself(run, recorded):
    code, out, _ = run("verify", recorded / "00.flac.evidence.json", "--model", MODEL)
    assert code == 0
    assert "(a = 0.001)" in out


def test_without_a_profile_the_exit_code_is_two(run, recorded):
    code, out, _ = run("verify", recorded / "00.flac.evidence.json", "--model", MODEL, "--profile", "rules")
    assert code == 2
    assert "profile.missing" in out


def test_another_model_fails_with_exit_code_one(run, recorded):
    code, out, _ = run("verify", recorded / "00.flac.evidence.json", "--model", EARLY, "--profile", "provisional")
    assert code == 1
    assert "weights.mismatch" in out


def test_the_customers_request_is_recorded_and_bound(run, tmp_path):
    asked, evidence = tmp_path / "asked.json", tmp_path / "evidence.msgpack"
    assert run("request", CLIPS / "02.flac", "--out", asked, "--language", "en", "--prompt", "good morning")[0] == 0
    assert run("record", MODEL, CLIPS / "02.flac", "--request", asked, "--out", evidence)[0] == 0
    base = ("verify", evidence, "--model", MODEL, "--audio", CLIPS / "02.flac", "--profile", "provisional")
    receipt = tmp_path / "evidence.receipt.json"
    code, out, _ = run(*base, "--request", asked, "--receipt", receipt)
    assert (code, out.splitlines()[0]) == (0, "PASS (proves: committed)")
    other = tmp_path / "other.json"
    assert run("request", CLIPS / "02.flac", "--out", other, "--language", "en")[0] == 0
    code, out, _ = run(*base, "--request", other)
    assert code == 1
    assert "request.mismatch" in out


def test_requests_of_many_clips_are_asked_answered_and_checked_by_folder(run, tmp_path):
    """The committed flow for a folder: a nonce per clip, one load of the model."""
    asked, answers, two = tmp_path / "asked", tmp_path / "answers", [CLIPS / "02.flac", CLIPS / "05.flac"]
    code, out, _ = run("request", *two, "--out", asked, "--language", "en", "--json")
    assert code == 0
    assert len({json.loads(line)["digest"] for line in out.splitlines()}) == 2
    assert run("record", MODEL, *two, "--request", asked, "--out", answers)[0] == 0
    given = ("--audio", CLIPS, "--request", asked, "--receipt", answers, "--profile", "provisional", "--json")
    code, out, _ = run("verify", answers, "--model", MODEL, *given)
    assert [json.loads(line)["proves"] for line in out.splitlines()] == ["committed"] * 2
    for mistake in (
        ("request", *two, "--out", tmp_path / "one.json"),
        ("record", MODEL, *two, "--request", asked / "02.flac.request.json", "--out", answers),
    ):
        code, _, err = run(*mistake)
        assert code == 3
        assert "folder" in err
    (asked / "05.flac.request.json").unlink()
    code, _, err = run("record", MODEL, *two, "--request", asked, "--out", tmp_path / "again")
    assert (code, "05.flac.request.json" in err) == (3, True)


def test_canonicalise_gives_the_digest_that_requests_use(run, tmp_path):
    tone = (np.sin(np.arange(44_100) / 20) * 9000).astype(np.int16)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), 44_100)
    code, out, _ = run("canonicalise", tmp_path / "tone.wav", tmp_path / "tone.flac", "--json")
    row = json.loads(out)
    assert (code, row["samples"]) == (0, 16_000)
    code, out, _ = run("request", tmp_path / "tone.wav", "--out", tmp_path / "r.json", "--json")
    assert json.loads(out)["audio_digest"] == row["digest"]


def test_manifest_and_output_in_a_folder(run, tmp_path):
    manifest = tmp_path / "set.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": str(CLIPS / f"0{i}.flac")}) + "\n" for i in (3, 4)))
    code, out, _ = run("record", MODEL, manifest, "--out", tmp_path / "out", "--language", "en", "--json")
    assert code == 0
    assert [Path(json.loads(line)["evidence"]).exists() for line in out.splitlines()] == [True, True]


@pytest.mark.parametrize("command", ["families", "models", "scenarios", "doctor"])
def test_listings(run, command):
    code, out, _ = run(command)
    assert code == 0
    assert out
    code, out, _ = run(command, "--json")
    assert [json.loads(line) for line in out.splitlines()]


def test_families_shows_a_plugin_that_does_not_load(run, monkeypatch):
    from importlib.metadata import EntryPoint

    from earmark import registry

    points = [
        EntryPoint(name="broken", value="no.such.module:Family", group="earmark.families"),
        EntryPoint(
            name="autoregressive",
            value="earmark.verifiers.autoregressive:AutoregressiveFamily",
            group="earmark.families",
        ),
    ]
    monkeypatch.setattr(registry, "registry", lambda kind: registry.Registry(kind, points))
    code, out, _ = run("families", "--json")
    good, broken = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert "does not load" in broken["error"]
    assert "teacher-forced" in good["summary"]


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("canonicalise", "request", "record", "draw", "verify", "families", "models", "doctor"):
        assert command in out
    assert run("--version")[1].startswith("earmark 0.")


def test_every_option_is_an_environment_variable(run, recorded, monkeypatch):
    monkeypatch.setenv("EARMARK_VERIFY_PROFILE", "provisional")
    monkeypatch.setenv("EARMARK_VERIFY_MODEL", MODEL)
    assert run("verify", recorded / "00.flac.evidence.json")[0] == 0


def test_draw_names_the_receipts_to_open(run, recorded, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"sixteen bytes or more")
    code, out, _ = run("draw", recorded, "--seed-file", secret, "--count", "1", "--json")
    row = json.loads(out)
    assert code == 0
    assert row["receipt"] in {"00.flac.receipt.json", "01.flac.receipt.json"}
    listed = tmp_path / "receipts.txt"
    listed.write_text(row["token"] + "\n")
    assert row["token"] in run("draw", listed, "--seed-file", secret)[1]
    listed.write_text(row["token"] + "\nnonsense\n")
    assert "line 2" in _one_line(run("draw", listed, "--seed-file", secret)[2])


def test_draw_refuses_what_it_cannot_use(run, recorded, tmp_path):
    short = tmp_path / "short"
    short.write_bytes(b"abc")
    for arguments, words in (
        ((recorded, "--seed-file", short), "can be guessed"),
        ((recorded, "--seed-file", tmp_path / "none"), "16 random bytes"),
        ((tmp_path, "--seed-file", short), "no receipts"),
        ((tmp_path / "gone", "--seed-file", short), "no such file"),
    ):
        code, _, err = run("draw", *arguments)
        assert code == 3
        assert words in _one_line(err)


# What does not


def _sound(path: Path, samples: np.ndarray, rate: int = 16_000, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def _bad_audio(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound")
    nan = np.full(16_000, np.nan, np.float32)
    return {
        "missing": (folder / "missing.wav", "no such"),
        "empty": (folder / "empty.wav", "empty"),
        "not audio": (folder / "text.wav", "text.wav"),
        "no samples": (_sound(folder / "none.wav", np.zeros(0, np.int16)), "none.wav"),
        "NaN": (_sound(folder / "nan.wav", nan, subtype="FLOAT"), "NaN"),
        "100 ms": (_sound(folder / "short.wav", np.ones(1600, np.int16)), "100 ms found, at least"),
    }


@pytest.mark.parametrize("name", ["missing", "empty", "not audio", "no samples", "NaN", "100 ms"])
@pytest.mark.parametrize("command", ["record", "request", "canonicalise"])
def test_bad_audio_is_one_line_and_leaves_nothing(run, tmp_path, name, command):
    path, words = _bad_audio(tmp_path)[name]
    out = tmp_path / "out.flac" if command == "canonicalise" else tmp_path / "out.json"
    arguments = {
        "record": ("record", MODEL, path, "--out", out),
        "request": ("request", path, "--out", out),
        "canonicalise": ("canonicalise", path, out),
    }[command]
    code, _, err = run(*arguments)
    assert code == 3
    assert words in _one_line(err)
    assert not list(tmp_path.glob("out*"))


def test_bad_clips_among_good_ones_are_named_and_the_others_recorded(run, tmp_path):
    _bad_audio(tmp_path)
    shutil.copy(CLIPS / "05.flac", tmp_path / "good.flac")
    code, out, err = run("record", MODEL, tmp_path, "--out", tmp_path / "out", "--language", "en", "--json")
    assert code == 3
    assert json.loads(out)["audio"] == "good.flac"
    assert len(err.strip().splitlines()) == 5
    assert (tmp_path / "out" / "good.flac.receipt.json").exists()


def test_bad_audio_at_verification_is_inconclusive(run, recorded, tmp_path):
    path, _ = _bad_audio(tmp_path)["empty"]
    evidence = recorded / "00.flac.evidence.json"
    code, out, _ = run("verify", evidence, "--model", MODEL, "--audio", path, "--profile", "provisional")
    assert code == 2
    assert "audio.unusable" in out


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda text: text[: len(text) // 2], 1, "record.malformed"),
        (lambda text: text.replace("earmark.evidence/1", "earmark.evidence/9"), 1, "record.unknown_version"),
        (lambda text: text.replace('"autoregressive"', '"telepathic"'), 1, "family.mismatch"),
        (lambda text: text.replace('"precision": "fp32"', '"precision": "fp8"'), 1, "record.malformed"),
        (lambda _: "", 1, "record.malformed"),
    ],
)
def test_bad_evidence_is_a_finding(run, recorded, tmp_path, change, code, words):
    bad = tmp_path / "bad.evidence.json"
    bad.write_text(change((recorded / "00.flac.evidence.json").read_text()))
    result, out, err = run("verify", bad, "--model", MODEL, "--audio", recorded / "00.flac", "--profile", "provisional")
    assert result == code
    assert words in out
    assert err.strip() == ""


def test_wrong_clip_is_inconclusive_or_fail(run, recorded):
    evidence = recorded / "00.flac.evidence.json"
    base = ("verify", evidence, "--model", MODEL, "--audio", recorded / "01.flac", "--profile", "provisional")
    assert run(*base)[0] == 1
    assert run(*base, "--request", recorded / "00.flac.request.json")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "nowhere.json", "--model", MODEL), "no such file"),
        (("verify", "{recorded}", "--model", MODEL, "--audio", "{recorded}/00.flac"), "one file for many"),
        (("verify", "{recorded}/00.flac.evidence.json", "--model", MODEL, "--audio", "nowhere"), "no such file"),
        (("verify", "{recorded}/00.flac.evidence.json", "--model", "nowhere"), "no such folder"),
        (("verify", "{recorded}/00.flac.evidence.json", "--model", MODEL, "--profile", "x"), "provisional"),
        (("verify", "{recorded}/00.flac.evidence.json"), "Missing option"),
        (("record", MODEL, "{clips}/00.flac", "{clips}/00.flac", "--out", "{tmp}"), "same files"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--k", "1000000"), "k = 1000000"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--language", "xx"), "no language 'xx'"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--task", "sing"), "task"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--beams", "3", "--seed", "4"), "seed"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--dtype", "int8"), "dtype 'int8'"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/x.json", "--batch-size", "0"), "batch-size"),
        (("record", MODEL, "{tmp}", "--out", "{tmp}"), "holds no audio"),
        (("record", "{tmp}", "{clips}/00.flac", "--out", "{tmp}/x.json"), "no config.json"),
        (("record", MODEL, "{clips}/00.flac", "--out", "{tmp}/no/such/x.json"), "nothing was written"),
        (("transcribe",), "No such command"),
    ],
)
def test_wrong_use_is_one_line_with_exit_code_three(run, recorded, tmp_path, arguments, words):
    names = {"recorded": recorded, "clips": CLIPS, "tmp": tmp_path}
    code, out, err = run(*(str(a).format(**names) for a in arguments))
    assert code == 3, (out, err)
    assert words in _one_line(err)
    assert list(tmp_path.rglob("*.json")) == []


def test_errors_that_nobody_expected_are_one_line_and_no_fail(run, monkeypatch):
    """Exit code 1 says FAIL, which Python's own for uncaught exceptions is."""

    def fail(_):
        raise MemoryError("no \x1b[2J\nroom")

    monkeypatch.setattr("earmark.cli.app.run", fail)
    code, out, err = run("families")
    assert (code, out) == (3, "")
    assert "internal error: MemoryError: no �[2J room; please report" in _one_line(err)
    monkeypatch.setenv("EARMARK_DEBUG", "1")
    with pytest.raises(MemoryError):
        run("families")


def test_a_command_that_is_interrupted_while_it_starts_is_one_line(run, monkeypatch):
    class Interrupted:
        def __getattr__(self, _):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "earmark.cli.app", Interrupted())
    code, _, err = run("families")
    assert (code, _one_line(err)) == (3, "earmark: interrupted")


def test_nothing_slow_is_imported_before_a_command_runs():
    done = subprocess.run(
        [sys.executable, "-c", "import earmark.cli.app, sys; print('scipy.stats' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


def test_unknown_fields_forge_no_line(run, recorded, tmp_path):
    evidence = json.loads((recorded / "00.flac.evidence.json").read_text())
    path = tmp_path / "00.flac.evidence.json"
    path.write_text(json.dumps({**evidence, "\x1b[2J\x1b[HPASS": 1}))
    code, out, _ = run("verify", path, "--model", MODEL, "--audio", CLIPS / "00.flac", "--profile", "rules")
    assert (code, "\x1b" in out, "record.malformed" in out) == (1, False, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_line(run):
    code, _, err = run("record", MODEL, CLIPS / "00.flac", "--out", "/dev/full", "--language", "en")
    assert code == 3
    assert "No space left" in _one_line(err)


def test_damaged_manifests_name_the_line(run, tmp_path):
    manifest = tmp_path / "set.jsonl"
    good = json.dumps({"audio_filepath": str(CLIPS / "00.flac")})
    for line, words in (("{", "line 2"), (json.dumps({"text": "x"}), "line 2"), ('{"path": "gone.wav"}', "gone.wav")):
        manifest.write_text(f"{good}\n{line}\n")
        code, _, err = run("record", MODEL, manifest, "--out", tmp_path / "out")
        assert code == 3
        assert words in _one_line(err)
    manifest.write_text("\n")
    assert "empty manifest" in run("record", MODEL, manifest, "--out", tmp_path / "out")[2]
