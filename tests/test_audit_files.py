"""Which files an audit takes: manifests of evidence, and never another record in its place."""

from __future__ import annotations

import json

import pytest
from made_profiles import calibrated

MODEL = "embedded:whisper-nano"


@pytest.fixture
def words(recorded, nano, tmp_path):
    """Return a function that gives the words of an audit of one file, without where its clips lie."""
    calibrated(nano).save(tmp_path / "profile")

    def of(given, *more):
        profile = ["--model", MODEL, "--profile", tmp_path / "profile", "--log", tmp_path / "log", "--json"]
        return ["audit", given, *profile, *more]

    of.rows = [
        {
            "evidence": f"{recorded}/{name}.evidence.json",
            "audio": f"{recorded}/{name}",
            "request": f"{recorded}/{name}.request.json",
            "receipt": f"{recorded}/{name}.receipt.json",
        }
        for name in ("00.flac", "01.flac")
    ]
    return of


@pytest.mark.parametrize(("start", "end"), [(b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_a_manifest_names_evidence_and_what_belongs_to_it(words, recorded, run, start, end):
    """Relative to the manifest, with the ends of lines and the mark that other systems write."""
    relative = [{key: value.removeprefix(f"{recorded}/") for key, value in row.items()} for row in words.rows]
    manifest = recorded / "audit.jsonl"
    manifest.write_bytes(start + end.join(json.dumps(row).encode() for row in relative) + end)
    code, out, _ = run(*words(manifest, "--policy", "strict"))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert [(row["clip"], row["outcome"]) for row in rows[:-1]] == [("00.flac", "PASS"), ("01.flac", "PASS")]
    manifest.unlink()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is an empty manifest"),
        ([{"audio_filepath": "a.wav"}], "line 1: audio_filepath found; expected a JSON object of file names"),
        ([{"evidence": "a", "text": "b"}], "line 1: evidence, text found; expected"),
        ([{"evidence": 1}], "line 1: evidence found; expected"),
        ([[]], "line 1: list found"),
        ([{"evidence": "none.json"}], "none.json does not exist; name files relative to the manifest"),
    ],
)
def test_a_damaged_manifest_is_our_own_fault(words, tmp_path, run, lines, message):
    (tmp_path / "a").touch()
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, err = run(*words(manifest))
    assert (code, message in err) == (3, True), err
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("kind", ["request", "receipt"])
def test_another_record_is_no_evidence_of_a_provider(words, recorded, tmp_path, run, kind):
    code, _, err = run(*words(recorded / f"00.flac.{kind}.json", "--audio", recorded / "00.flac"))
    assert (code, f"is a {kind} by its name; expected evidence" in err) == (3, True), err
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(words.rows[0] | {"evidence": words.rows[0][kind]}))
    assert run(*words(manifest))[0] == 3
    code, out, _ = run(*words(recorded / "00.flac.evidence.json", "--audio", recorded / "00.flac"))
    assert (code, json.loads(out.splitlines()[0])["outcome"]) == (2, "PASS"), "the twin"


def test_a_log_that_is_no_file_is_refused(words, recorded, tmp_path, run):
    """/dev/full was read without an end."""
    for log in ("/dev/full", "/dev/null", tmp_path):
        code, _, err = run(*words(recorded, "--audio", recorded)[:-3], "--log", log)
        assert (code, "is no regular file; give a file" in err) == (3, True), err
