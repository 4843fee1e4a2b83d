"""The command line: drawn receipts that are opened or not, compact files, and transcripts without evidence."""

from __future__ import annotations

import json
import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from made_profiles import calibrated

from earmark import Case
from earmark.cli import main, openings
from earmark.errors import UsageError
from earmark.records import codec
from earmark.records.policy import STRICT
from earmark.records.receipt import Receipt
from earmark.records.verdict import unclear

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


# What else lies in a provider's folder


def _folder(place: Path) -> None:
    place.mkdir()


def _broken_link(place: Path) -> None:
    place.symlink_to("nowhere")


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _undrawn(run, opened, handed_in):
    places = [word for name in ("--audio", "--request", "--receipt") for word in (name, handed_in)]
    base = ("--model", MODEL, "--profile", "provisional", "--json")
    code, out, err = run("verify", opened, *base, *places)
    rows = [json.loads(line) for line in out.splitlines()]
    return code, {Path(row["evidence"]).name: (row["outcome"], row["fault"], row["findings"]) for row in rows}, err


@pytest.mark.parametrize("make", [_folder, _broken_link, _pipe])
def test_what_is_no_file_is_the_finding_of_its_clip(run, drawn, opened, handed_in, make):
    place = opened / "00.flac.evidence.json"
    place.unlink()
    make(place)
    code, rows, _ = _undrawn(run, opened, handed_in)
    outcome, fault, findings = rows[place.name]
    assert (outcome, fault, findings[0]["code"]) == ("INCONCLUSIVE", "provider", "opening.unreadable")
    assert (code, rows["01.flac.evidence.json"][0]) == (2, "PASS")
    code, rows = _rows(run, opened, drawn(), handed_in)
    assert (code, rows["00.flac"], rows["01.flac"][0]) == (2, ("INCONCLUSIVE", ["opening.unreadable"]), "PASS")


def test_evidence_that_nobody_asked_for_is_the_finding_of_its_clip(run, opened, handed_in):
    """One stray file does not end the verification of the others; where all are strays, the folder is wrong."""
    shutil.copy(opened / "00.flac.evidence.json", opened / "99.flac.evidence.json")
    code, rows, _ = _undrawn(run, opened, handed_in)
    assert [row[:2] for row in rows.values()] == [("PASS", None), ("PASS", None), ("INCONCLUSIVE", "input")]
    assert (code, rows["99.flac.evidence.json"][2][0]["code"]) == (2, "opening.surplus")
    for name in NAMES:
        (opened / f"{name}.evidence.json").unlink()
    code, rows, err = _undrawn(run, opened, handed_in)
    assert (code, rows, "99.flac does not exist" in err) == (3, {}, True), "none of them has a clip"


def test_a_clip_that_the_customer_lost_is_no_fault_of_the_provider(run, opened, handed_in, tmp_path):
    mine = Path(shutil.copytree(handed_in, tmp_path / "mine"))
    (mine / "00.flac").unlink()
    code, rows, _ = _undrawn(run, opened, mine)
    assert [row[:2] for row in rows.values()] == [("INCONCLUSIVE", "input"), ("PASS", None)]
    assert code == 2


def test_a_clip_has_one_opening(run, drawn, opened, handed_in):
    """Of two files of one name, .json counts; files of other kinds count as none."""
    (opened / "00.flac.evidence.msgpack").write_bytes(b"spoilt")
    (opened / "01.flac.evidence.txt").touch()
    code, rows, _ = _undrawn(run, opened, handed_in)
    assert (code, sorted(rows)) == (0, [f"{name}.evidence.json" for name in NAMES])
    for name in NAMES:
        (opened / f"{name}.evidence.json").unlink()
    (opened / "00.flac.evidence.msgpack").unlink()
    code, rows = _rows(run, opened, drawn(), handed_in)
    assert (code, {codes[0] for _, codes in rows.values()}) == (1, {"opening.missing"})


def test_an_audit_goes_on_behind_what_is_no_evidence(run, nano, opened, handed_in, tmp_path):
    calibrated(nano).save(tmp_path / "profile")
    (opened / "00.flac.evidence.json").unlink()
    (opened / "00.flac.evidence.json").mkdir()
    shutil.copy(opened / "01.flac.evidence.json", opened / "01.flac.evidence.msgpack")
    places = [word for name in ("--audio", "--request", "--receipt") for word in (name, handed_in)]
    log = ("--profile", tmp_path / "profile", "--log", tmp_path / "log", "--json")
    code, out, _ = run("audit", opened, "--model", MODEL, *places, *log)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2, "two clips are too few to decide"
    assert [row["findings"] for row in rows[:2]] == [["opening.unreadable"], []]
    assert (rows[0]["score"], rows[1]["score"] is None) == ("infinite", False)


def test_a_stray_needs_neither_request_nor_receipt():
    """What an audit of compact evidence, or a strict policy, asks of every opening is asked of no stray."""
    stray = Case(evidence=unclear("opening.surplus", "input", "x", "y"), audio="")
    openings.check_requests("compact", [stray])
    openings.check_receipts(STRICT, [stray])
    bare = Case(evidence=b"", audio="")
    for check in (lambda: openings.check_requests("compact", [bare]), lambda: openings.check_receipts(STRICT, [bare])):
        with pytest.raises(UsageError, match="give the"):
            check()


def test_received_texts_are_compared_by_command(run, opened, handed_in, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in NAMES:
        text = json.loads((opened / f"{name}.evidence.json").read_text())["text"]
        (texts / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    base = ("--model", MODEL, "--profile", "provisional", "--audio", handed_in, "--request", handed_in, "--json")
    assert run("verify", opened, *base, "--transcript", texts)[0] == 0
    one = opened / "00.flac.evidence.json"
    code, out, _ = run("verify", one, *base, "--transcript", texts / "01.flac.txt")
    row = json.loads(out)
    assert (code, [finding["code"] for finding in row["findings"]]) == (1, ["text.delivered"])
    assert row["transcript"] == (texts / "00.flac.txt").read_text().strip()
    (texts / "00.flac.txt").write_bytes(b"\xff")
    (texts / "01.flac.txt").unlink()
    for evidence, given, words in (
        (one, texts, "no UTF-8"),
        (opened / "01.flac.evidence.json", texts, "give an existing file"),
        (opened, texts / "00.flac.txt", "one file for many"),
    ):
        code, _, err = run("verify", evidence, *base, "--transcript", given)
        assert (code, words in err) == (3, True), err
    assert run("verify", "--text", "words", *base, "--transcript", texts)[0] == 3


# One commitment for two requests


@pytest.fixture
def shared(handed_in, opened, tmp_path) -> Path:
    """Return the receipts of a provider that commits to its evidence of 00.flac twice, and opens it once."""
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    for name in NAMES:
        shutil.copy(handed_in / "00.flac.receipt.json", receipts / f"{name}.receipt.json")
    (opened / "01.flac.evidence.json").unlink()
    return receipts


def _drawn_from(run, receipts, path: Path, *, bare: bool = False) -> Path:
    secret = path.with_name("secret")
    secret.write_bytes(b"sixteen bytes or more")
    printed = run("draw", receipts, "--seed-file", secret, "--count", "2")[1]
    path.write_text("".join(line.split()[0] + "\n" for line in printed.splitlines()) if bare else printed)
    return path


@pytest.mark.parametrize("bare", [False, True])
def test_an_opening_opens_one_receipt(run, shared, opened, handed_in, tmp_path, bare):
    """The second receipt is not checked against the clip and the request of the first."""
    drawn = _drawn_from(run, shared, tmp_path / "drawn", bare=bare)
    code, out, _ = run(
        "verify", opened, "--model", MODEL, "--drawn", drawn, "--audio", handed_in, "--request", handed_in,
        "--profile", "provisional", "--json",
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    found = [(row["outcome"], [f["code"] for f in row["findings"]]) for row in rows]
    assert (code, found) == (1, [("PASS", []), ("FAIL", ["opening.missing"])])


def test_a_receipt_is_opened_under_its_own_name_alone(run, shared, opened, handed_in, tmp_path):
    """Though the receipt of 00.flac, which has the same commitment, was not drawn."""
    (shared / "00.flac.receipt.json").unlink()
    drawn = tmp_path / "drawn"
    drawn.write_text(f"{_token(shared)}  01.flac.receipt.json\n")
    assert _rows(run, opened, drawn, handed_in) == (1, {"01.flac": ("FAIL", ["opening.missing"])})


def _token(receipts: Path) -> str:
    return codec.load(receipts / "01.flac.receipt.json", Receipt).token


@pytest.mark.parametrize("bare", [False, True])
def test_an_audit_goes_on_behind_a_receipt_without_opening(run, nano, shared, opened, handed_in, tmp_path, bare):
    calibrated(nano).save(tmp_path / "profile")
    drawn = _drawn_from(run, shared, tmp_path / "drawn", bare=bare)
    log = tmp_path / "log.jsonl"
    code, _, err = run(
        "audit", opened, "--model", MODEL, "--drawn", drawn, "--audio", handed_in, "--request", handed_in,
        "--profile", tmp_path / "profile", "--log", log,
    )  # fmt: skip
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert (code, err) == (2, "")
    assert [entry["findings"] for entry in entries] == [[], ["opening.missing"]]
    assert entries[1]["score"] == "infinite", "it counts against the provider"


def test_two_receipts_of_one_name_are_refused(run, handed_in, drawn):
    listed = drawn()
    listed.write_text(listed.read_text() * 2)
    code, _, err = run("verify", handed_in, "--model", MODEL, "--drawn", listed)
    assert (code, ".flac.receipt.json' twice; draw from one folder" in err) == (3, True)


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
