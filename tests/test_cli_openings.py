"""The command line: drawn receipts that are opened or not, compact files, and transcripts without evidence."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from earmark.cli import main

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:whisper-nano"
EARLY = "embedded:whisper-nano-early"
NAMES = ("00.flac", "01.flac")


def _record(root: Path, model: str, *options: str) -> Path:
    root.mkdir()
    for name in NAMES:
        shutil.copy(CLIPS / name, root / name)
    assert main(["record", model, str(root), "--out", str(root), "--language", "en", "--json", *options]) == 0
    return root


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory) -> Path:
    """Return a folder with the clips and records of two requests."""
    return _record(tmp_path_factory.mktemp("handed") / "in", MODEL)


@pytest.fixture
def opened(handed_in, tmp_path) -> Path:
    """Return a copy in which a provider opens its evidence."""
    return Path(shutil.copytree(handed_in, tmp_path / "opened"))


@pytest.fixture
def drawn(run, handed_in, tmp_path):
    """Draw all receipts; return the file of what was printed, plain or as JSON."""

    def call(*options: str) -> Path:
        secret = tmp_path / "secret"
        secret.write_bytes(b"sixteen bytes or more")
        path = tmp_path / "drawn"
        path.write_text(run("draw", handed_in, "--seed-file", secret, "--count", "2", *options)[1])
        return path

    return call


def _rows(run, opened, drawn, handed_in, *options):
    code, out, _ = run(
        "verify", opened, "--model", MODEL, "--drawn", drawn, "--audio", handed_in, "--request", handed_in,
        "--profile", "provisional", "--json", *options,
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    return code, {
        Path(row["evidence"]).name[:7]: (row["outcome"], [f["code"] for f in row["findings"]]) for row in rows
    }


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_opened_receipts_pass(run, drawn, handed_in, opened, options):
    code, rows = _rows(run, opened, drawn(*options), handed_in)
    assert (code, rows) == (0, {"00.flac": ("PASS", []), "01.flac": ("PASS", [])})


def test_an_opening_that_is_missing_fails(run, drawn, handed_in, opened):
    (opened / "00.flac.evidence.json").unlink()
    code, rows = _rows(run, opened, drawn(), handed_in)
    assert (code, rows) == (1, {"00.flac": ("FAIL", ["opening.missing"]), "01.flac": ("PASS", [])})
    (opened / "01.flac.evidence.json").unlink()
    code, rows = _rows(run, opened, drawn(), handed_in)
    assert (code, {codes[0] for _, codes in rows.values()}) == (1, {"opening.missing"})


def test_a_different_opening_fails(run, drawn, handed_in, opened):
    """Fresh evidence of the real model for the same request, made after the draw, and another clip's evidence."""
    request = opened / "00.flac.request.json"
    evidence = opened / "00.flac.evidence.json"
    assert run("record", EARLY, CLIPS / "00.flac", "--request", request, "--out", evidence)[0] == 0
    shutil.copy(handed_in / "00.flac.evidence.json", opened / "01.flac.evidence.json")
    code, rows = _rows(run, opened, drawn(), handed_in)
    assert code == 1
    assert all("receipt.mismatch" in codes for _, codes in rows.values())


def test_short_receipts_find_their_evidence_by_its_digest(run, drawn, handed_in, opened, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(line.split()[0] + "\n" for line in drawn().read_text().splitlines()))
    code, rows = _rows(run, opened, tokens, handed_in)
    assert (code, {outcome for outcome, _ in rows.values()}) == (0, {"PASS"})
    (opened / "00.flac.evidence.json").unlink()
    assert _rows(run, opened, tokens, handed_in)[0] == 1


def test_lists_that_are_none_are_named(run, handed_in, tmp_path):
    base = ("verify", handed_in, "--model", MODEL, "--drawn")
    damaged = tmp_path / "damaged"
    for content, words in (("nonsense\n", "line 1"), ("", "names no receipts"), ('{"token": 3}\n', "line 1")):
        damaged.write_text(content)
        code, _, err = run(*base, damaged)
        assert (code, words in err) == (3, True)
    assert run(*base, tmp_path / "gone")[0] == 3
    assert "leave out --receipt" in run(*base, damaged, "--receipt", handed_in)[2]


# Compact evidence


def test_compact_evidence_from_file_to_verdict(run, tmp_path):
    root = _record(tmp_path / "compact", MODEL, "--level", "compact")
    assert all((root / f"{name}.evidence.msgpack").stat().st_size < 1024 for name in NAMES)
    policy = tmp_path / "policy.toml"
    base = ("verify", root, "--model", MODEL, "--request", root, "--receipt", root, "--profile", "provisional")
    code, out, _ = run(*base)
    assert (code, "level.compact" in out) == (2, True)
    policy.write_text("accept_compact = true\n")
    code, out, _ = run(*base, "--policy", policy)
    assert (code, "2 PASS" in out) == (0, True)


# Text alone


def test_text_on_the_command_line_and_in_files(run, handed_in, tmp_path):
    text = json.loads((handed_in / "00.flac.evidence.json").read_text())["text"]
    base = ("verify", "--model", MODEL, "--language", "en", "--text")
    code, out, _ = run(*base, text, "--audio", CLIPS / "00.flac")
    assert (code, "text.only" in out) == (2, True)
    code, out, _ = run(*base, text + " lamp", "--audio", CLIPS / "00.flac")
    assert (code, "text.margin" in out) == (1, True)
    (tmp_path / "00.flac.txt").write_text(text + "\n")
    (tmp_path / "01.flac.json").write_text(json.dumps({"segments": [{"text": text, "avg_logprob": -0.1}]}))
    code, out, _ = run(*base, tmp_path, "--audio", CLIPS, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["outcome"] for row in rows]) == (1, ["INCONCLUSIVE", "FAIL"])
    assert {"margin_max", "missing_words"} <= set(rows[0]["fingerprint"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("words",), "name the clip"),
        (("gone.txt",), "no such file"),
        (("  ",), "empty text"),
        (("{tmp}",), "holds no .txt"),
        (("{tmp}/bad.json",), "holds no transcript"),
    ],
)
def test_unusable_texts_are_named(run, tmp_path, arguments, words):
    if "bad" in arguments[0]:
        (tmp_path / "bad.json").write_text('{"segments": [{"text": 3}]}')
    code, _, err = run("verify", "--model", MODEL, "--text", *(a.format(tmp=tmp_path) for a in arguments))
    assert (code, words in err) == (3, True)
