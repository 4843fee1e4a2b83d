"""What a server leaves unanswered is noted with its fault, and an audit counts it by that fault."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from made_profiles import calibrated

import earmark
from earmark import Case, cli
from earmark.errors import EndpointError, RecordError
from earmark.interop.endpoint import finding_of
from earmark.records import codec
from earmark.records.unanswered import Unanswered
from earmark.rules import check_rules

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:whisper-nano"


def _answer(handler, status, data=b"", length=None):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def _sleep(handler):
    time.sleep(1.0)
    handler.connection.close()


#: clip, what the server does, the finding, whose fault it is
FAULTS = {
    "a.flac": (lambda h: _answer(h, 401), "endpoint.refused", "verifier"),
    "b.flac": (lambda h: _answer(h, 503), "endpoint.failed", "provider"),
    "c.flac": (_sleep, "endpoint.timeout", "provider"),
    "d.flac": (lambda h: _answer(h, 200, b"{", length=900), "endpoint.cut", "provider"),
    "e.flac": (lambda h: _answer(h, 404), "endpoint.refused", "verifier"),
}


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """Return a folder with five clips, what a failing server left of them, and what the command said."""
    waiting = [behave for behave, _, _ in FAULTS.values()]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            waiting.pop(0)(self)

    folder = tmp_path_factory.mktemp("noted")
    for number, name in enumerate(FAULTS):
        (folder / name).write_bytes((CLIPS / f"{number:02}.flac").read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        words = ["record", MODEL, str(folder), "--out", str(folder), "--language", "en", "--device", "cpu"]
        words += ["--endpoint", f"http://127.0.0.1:{server.server_port}/v1", "--served", "x", "--timeout", "0.4"]
        code = cli.main([*words, "--api", "transcriptions"])
        server.shutdown()
    assert (code, waiting) == (cli.UNUSABLE, [])
    return folder


def test_every_fault_is_noted_beside_where_the_evidence_would_be(noted):
    for name, (_, code, fault) in FAULTS.items():
        note = codec.load(noted / f"{name}.unanswered.json", Unanswered)
        finding = note.finding
        assert (finding.code, finding.fault, finding.severity) == (code, fault, "inconclusive")
        assert note.request.audio_digest == earmark.load_audio(noted / name).digest
    assert not list(noted.glob("*.evidence.json"))


def _audit(noted, tmp_path, nano, *more):
    calibrated(nano).save(tmp_path / "profile")
    words = ["audit", str(noted), "--model", MODEL, "--profile", str(tmp_path / "profile"), "--device", "cpu"]
    return cli.main([*words, "--log", str(tmp_path / "log.jsonl"), "--policy", "listed", "--json", *more])


def test_an_audit_counts_each_by_its_fault(noted, nano, tmp_path, capsys):
    """The provider's count as the worst score, the verifier's not at all; none is a PASS or a FAIL of the clip."""
    capsys.readouterr()
    assert _audit(noted, tmp_path, nano, "--unanswered", str(noted), "--no-stop") in {cli.FAILED, cli.INCONCLUSIVE}
    *rows, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["clip"] for row in rows] == list(FAULTS)
    for row in rows:
        _, code, fault = FAULTS[row["clip"]]
        assert (row["outcome"], row["findings"]) == ("INCONCLUSIVE", [code])
        assert (row["score"] is None) == (fault == "verifier")
    assert {row["score"] for row in rows if row["score"] is not None} == {"infinite"}
    assert summary["clips"] == 3


def test_faults_of_the_verifier_alone_decide_nothing(noted, nano, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a.flac.unanswered.json", "e.flac.unanswered.json"):
        (own / name).write_bytes((noted / name).read_bytes())
    capsys.readouterr()
    assert _audit(own, tmp_path, nano, "--unanswered", str(own)) == cli.INCONCLUSIVE
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["clips"], summary["e_value"]) == (0, 1.0)


def test_notes_that_nobody_named_are_not_passed_over(noted, nano, tmp_path, capsys):
    capsys.readouterr()
    assert _audit(noted, tmp_path, nano) == cli.UNUSABLE
    assert "--unanswered" in capsys.readouterr().err
    (tmp_path / "drawn").write_text("")
    assert _audit(noted, tmp_path, nano, "--unanswered", str(noted), "--drawn", str(tmp_path / "drawn")) == cli.UNUSABLE


def test_a_note_is_no_evidence(noted, nano):
    """A provider that hands in a note with the verifier's fault in it finds no shelter."""
    path = noted / "a.flac.unanswered.json"
    for given in (path, path.read_bytes()):
        (finding,) = check_rules(Case(evidence=given, audio=noted / "a.flac"), nano)
        assert (finding.severity, finding.fault) == ("fail", "provider")


def test_a_note_goes_when_the_clip_is_answered(noted, tmp_path):
    name = "b.flac"
    (tmp_path / name).write_bytes((noted / name).read_bytes())
    note = tmp_path / f"{name}.unanswered.json"
    note.write_bytes((noted / note.name).read_bytes())
    assert cli.main(["record", MODEL, str(tmp_path / name), "--out", str(tmp_path), "--language", "en", "--json"]) == 0
    assert not note.exists()
    assert (tmp_path / f"{name}.evidence.json").exists()


def test_notes_are_bounded_and_strict(noted):
    note = codec.load(noted / "a.flac.unanswered.json", Unanswered)
    long = finding_of(EndpointError("x" * 10_000, code="endpoint.failed"))
    assert len(Unanswered.of(long, note.request).found) == 2000
    for change in ({"fault": "nobody"}, {"code": "A b"}, {"found": "x" * 3000}, {"format": "earmark.unanswered/9"}):
        data = msgspec.json.encode(msgspec.to_builtins(note) | change)
        with pytest.raises(RecordError):
            codec.decode(data, Unanswered)
