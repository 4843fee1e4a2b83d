"""Evidence from a server: the wire format is spoken both ways, and everything that goes wrong has a name."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
import time
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np
import pytest
from api_responses import chat, events
from audio_llm_checkpoints import save_qwen3_asr

import earmark
from earmark import Clip, cli, record_many
from earmark.errors import EndpointError, PayloadError, UsageError
from earmark.interop import http
from earmark.interop.endpoint import Endpoint, ask, finding_of, record_endpoint
from earmark.recording import segment_inputs
from earmark.records.policy import LISTED


class Server:
    """Knows the transcripts of some clips; `behave` makes it misbehave."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, bytes], dict] = {}
        self.seen: list[dict] = []
        self.behave = None
        self.url = ""

    def learn(self, path, samples, completion):
        self.known[path, samples.tobytes()] = completion


def _samples(data: bytes) -> bytes:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return file.readframes(file.getnframes())


def _form(body: bytes, kind: str) -> dict:
    fields = {}
    for part in body.split(b"--" + kind.partition("boundary=")[2].encode())[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        fields[head.split(b'name="')[1].split(b'"')[0].decode()] = value
    return fields


def _audio(asked: dict) -> bytes:
    if "file" in asked:
        return _samples(asked["file"])
    (user,) = (message for message in asked["messages"] if message["role"] == "user")
    return _samples(base64.b64decode(user["content"][0]["input_audio"]["data"]))


def _handler(server: Server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            multipart = self.headers["Content-Type"].startswith("multipart")
            asked = _form(body, self.headers["Content-Type"]) if multipart else json.loads(body)
            server.seen.append({"headers": dict(self.headers), "asked": asked})
            found = server.known[self.path, _audio(asked)]
            if server.behave:
                server.behave(self, found)
                return
            streamed = asked.get("stream") is True
            self.send(events(found) if streamed else json.dumps(found).encode())

        def send(self, data: bytes, status=200, length=None, **headers):
            self.send_response(status)
            headers["Content-Length"] = str(len(data) if length is None else length)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """Return a small Qwen3-ASR of random weights: what it says is nonsense, but its own."""
    return earmark.load(save_qwen3_asr(tmp_path_factory.mktemp("qwen3-asr")), device="cpu")


@pytest.fixture(scope="module")
def spoken(qwen, clips):
    """Return clips with requests that a chat can be asked, and what the model says to them."""
    options = [{}, {"language": "en"}, {"prompt": "the kitchen"}]
    asked = [Clip(audio=c.audio, request=earmark.request(c.audio, **o)) for c, o in zip(clips, options, strict=False)]
    return asked, list(record_many(qwen, asked))


@pytest.fixture(scope="module")
def running(qwen, spoken, nano, clips, honest):
    server = Server()
    for clip, evidence in zip(*spoken, strict=True):
        completion = chat(qwen, evidence, tokens="prefixed", k=8, token_ids=True, finish="length")
        server.learn("/v1/chat/completions", clip.audio.samples, completion)
    for clip, evidence in zip(clips[:2], honest, strict=False):
        choice = chat(nano, evidence)["choices"][0]
        flat = [{k: row[k] for k in ("token", "logprob", "bytes")} for row in choice["logprobs"]["content"]]
        transcription = {"text": choice["message"]["content"], "logprobs": flat}
        server.learn("/v1/audio/transcriptions", clip.audio.samples, transcription)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        server.url = f"http://127.0.0.1:{listening.server_port}/v1"
        yield server
        listening.shutdown()


@pytest.fixture
def server(running):
    running.behave = None
    running.seen.clear()
    return running


def _endpoint(server, **options) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "qwen", "timeout_s": 10.0} | options)


def _verify(evidence, clip, model):
    return earmark.verify(evidence, clip.request, clip.audio, model, policy=LISTED, profile="provisional")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_honest_server_passes(server, qwen, spoken, stream):
    for clip, own in zip(*spoken, strict=True):
        evidence = record_endpoint(_endpoint(server, stream=stream), clip.request, clip.audio, qwen)
        assert (evidence.level, evidence.claim.engine) == ("listed", "API of served")
        assert evidence.segments[0].ids == own.segments[0].ids
        verdict = _verify(evidence, clip, qwen)
        assert verdict.outcome == "PASS", verdict.findings


def test_what_is_asked_is_what_the_request_says(server, qwen, spoken):
    clips, _ = spoken
    for clip in clips:
        record_endpoint(_endpoint(server, key="secret", k=6), clip.request, clip.audio, qwen)
    asked = [seen["asked"] for seen in server.seen]
    assert {(a["temperature"], a["logprobs"], a["top_logprobs"], a["return_token_ids"]) for a in asked} == {
        (0, True, 6, True)
    }
    assert [[m["role"] for m in a["messages"]] for a in asked] == [["user"], ["user", "assistant"], ["system", "user"]]
    assert asked[1]["messages"][1]["content"] == "language English<asr_text>"
    assert asked[1]["continue_final_message"] is True
    assert asked[2]["messages"][0]["content"] == "the kitchen"
    assert {seen["headers"]["Authorization"] for seen in server.seen} == {"Bearer secret"}


def test_other_servers_are_not_asked_for_what_they_refuse(server, qwen, spoken):
    clips, _ = spoken
    ask(_endpoint(server, source="openai"), segment_inputs(clips[0], qwen)[0], qwen)
    assert not {"return_token_ids", "return_tokens_as_token_ids"} & set(server.seen[0]["asked"])
    with pytest.raises(UsageError, match="cannot be told the language"):
        record_endpoint(_endpoint(server, source="openai"), clips[1].request, clips[1].audio, qwen)


def test_transcriptions_show_no_candidates(server, nano, clips):
    endpoint = _endpoint(server, api="transcriptions", source="openai")
    evidence = record_endpoint(endpoint, clips[0].request, clips[0].audio, nano)
    asked = server.seen[0]["asked"]
    assert (asked["language"], asked["include[]"], asked["response_format"]) == (b"en", b"logprobs", b"json")
    verdict = _verify(evidence, clips[0], nano)
    assert (verdict.outcome, {f.code for f in verdict.findings if f.severity != "note"}) == ("INCONCLUSIVE", {"k.low"})


def test_a_server_with_another_model_fails(server, qwen, spoken, tmp_path_factory):
    """It answers with what another network of the same tokenizer says."""
    clips, _ = spoken
    other = earmark.load(save_qwen3_asr(tmp_path_factory.mktemp("other"), seed=1), device="cpu")
    cheap = chat(
        other, earmark.record(other, clips[0].request, clips[0].audio), tokens="prefixed", k=8, finish="length"
    )
    server.behave = lambda handler, _: handler.send(json.dumps(cheap).encode())
    evidence = record_endpoint(_endpoint(server), clips[0].request, clips[0].audio, qwen)
    assert _verify(evidence, clips[0], qwen).outcome == "FAIL"


def _sleep(handler, _found):
    time.sleep(2.0)
    with contextlib.suppress(OSError):
        handler.send(b"{}")


def _trickle(handler, _found):
    handler.send(b"", length=10_000)
    with contextlib.suppress(OSError):
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)


def _cut(handler, found):
    data = json.dumps(found).encode()
    handler.send(data[: len(data) // 2], length=len(data))
    handler.connection.close()


def _cut_stream(handler, found):
    handler.send(events(found, done=False))


def _huge(handler, _found):
    handler.send(b" " * 500_000)


WRONG = {
    "times out": (_sleep, EndpointError, "endpoint.timeout", "provider"),
    "trickles": (_trickle, EndpointError, "endpoint.timeout", "provider"),
    "breaks off": (_cut, EndpointError, "endpoint.cut", "provider"),
    "stream breaks off": (_cut_stream, PayloadError, "payload.cut", "provider"),
    "says too much": (_huge, EndpointError, "endpoint.too_large", "provider"),
    "401": (lambda h, _: h.send(b'{"error": "no key"}', 401), EndpointError, "endpoint.refused", "verifier"),
    "404": (lambda h, _: h.send(b"", 404), EndpointError, "endpoint.refused", "verifier"),
    "429": (lambda h, _: h.send(b"", 429), EndpointError, "endpoint.failed", "provider"),
    "500": (lambda h, _: h.send(b"\xff" * 5000, 500), EndpointError, "endpoint.failed", "provider"),
    "redirects": (lambda h, _: h.send(b"", 307, Location="http://127.0.0.1:1/"), EndpointError, "endpoint.failed",
                  "provider"),
    "no JSON": (lambda h, _: h.send(b"<html>"), PayloadError, "payload.malformed", "provider"),
    "nothing": (lambda h, _: h.send(b""), PayloadError, "payload.malformed", "provider"),
    "text alone": (lambda h, _: h.send(b'{"text": "a"}'), PayloadError, "payload.no_logprobs", "provider"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_has_a_name_and_is_never_a_verdict_of_cheating(server, qwen, spoken, monkeypatch, name):
    behave, kind, code, fault = WRONG[name]
    server.behave, clip = behave, spoken[0][0]
    monkeypatch.setattr(http, "MAX_BYTES", 400_000)
    timeout_s = 0.5 if code == "endpoint.timeout" else 20.0
    with pytest.raises(kind) as caught:
        record_endpoint(_endpoint(server, timeout_s=timeout_s), clip.request, clip.audio, qwen)
    finding = finding_of(caught.value)
    assert (finding.code, finding.severity, finding.fault) == (code, "inconclusive", fault)


DRIPS = {
    "headers": ("http", b"HTTP/1.1 200 OK\r\n", "endpoint.timeout"),
    "reason": ("http", b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\n", "endpoint.failed"),
    "handshake": ("https", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", "endpoint.timeout"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_what_drips_is_cut_when_the_time_is_over(name):
    """Headers, the reason of a refusal and a handshake, byte by byte: no single wait lasts long."""

    scheme, first, code = DRIPS[name]

    def drip() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(first)
            for _ in range(100):
                connection.sendall(b"X")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(EndpointError) as caught:
            http.post(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/v1", b"{}", {}, timeout_s=0.5)
    assert (caught.value.code, caught.value.fault) == (code, "provider")
    assert time.monotonic() - begun < 5


def test_addresses_that_are_none_are_named(qwen, spoken):
    clip = spoken[0][0]
    for url in ("file:///etc/passwd", "localhost:8000", "ftp://host/v1", "http://"):
        with pytest.raises(UsageError, match="no address"):
            record_endpoint(Endpoint(url=url, model="m"), clip.request, clip.audio, qwen)
    with pytest.raises(EndpointError) as caught:
        record_endpoint(Endpoint(url="http://127.0.0.1:9", model="m"), clip.request, clip.audio, qwen)
    assert caught.value.code == "endpoint.unreachable"


def test_what_cannot_be_asked_of_a_server_is_refused(server, qwen, clips):
    for options in ({"decoding": earmark.Decoding(strategy="beam", beams=4)}, {"task": "translate"}):
        asked = earmark.request(clips[0].audio, **options)
        with pytest.raises(UsageError, match="greedy transcript"):
            record_endpoint(_endpoint(server), asked, clips[0].audio, qwen)
    with pytest.raises(UsageError, match="other audio"):
        record_endpoint(_endpoint(server), clips[1].request, clips[0].audio, qwen)
    assert server.seen == []


def test_long_audio_is_sent_piece_by_piece(server, qwen, spoken):
    audio = spoken[0][0].audio
    half = len(audio.samples) // 2
    asked = earmark.request(audio, segmentation=earmark.Segmentation(boundaries=(half,)))
    clip = Clip(audio=audio, request=asked)
    own = earmark.record(qwen, asked, audio)
    for segment in own.segments:
        alone = msgspec.structs.replace(own, segments=(segment,), text=segment.text.strip())
        completion = chat(qwen, alone, tokens="prefixed", k=8, finish="length")
        server.learn("/v1/chat/completions", audio.samples[segment.start : segment.end], completion)
    evidence = record_endpoint(_endpoint(server), asked, audio, qwen)
    assert [s.ids for s in evidence.segments] == [s.ids for s in own.segments]
    assert len(server.seen) == 2
    assert _verify(evidence, clip, qwen).outcome == "PASS"


# Command line


@pytest.fixture
def folder(tmp_path, clips):
    import soundfile

    soundfile.write(tmp_path / "a.wav", clips[0].audio.samples, 16_000, subtype="PCM_16")
    return tmp_path


def _run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_record_and_verify_by_command(server, folder, capsys, monkeypatch):
    monkeypatch.setenv("EARMARK_API_KEY", "secret")
    out = folder / "a.wav.evidence.json"
    options = ["--endpoint", server.url, "--served", "nano", "--api", "transcriptions", "--server", "openai"]
    options += ["--language", "en", "--device", "cpu", "--out", out]
    assert _run("record", "embedded:whisper-nano", folder / "a.wav", *options) == cli.PASSED
    assert server.seen[0]["headers"]["Authorization"] == "Bearer secret"
    verify = ["--model", "embedded:whisper-nano", "--audio", folder / "a.wav", "--policy", "listed", "--device", "cpu"]
    assert _run("verify", out, *verify, "--profile", "provisional", "--json") == cli.INCONCLUSIVE
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {f["code"] for f in row["findings"] if f["severity"] != "note"} == {"k.low"}


def test_failures_by_command_are_one_line_each(server, folder, capsys):
    server.behave = lambda handler, _: handler.send(b"", 503)
    options = ["--endpoint", server.url, "--served", "nano", "--api", "transcriptions", "--language", "en"]
    options += ["--device", "cpu", "--out", folder / "out"]
    assert _run("record", "embedded:whisper-nano", folder / "a.wav", *options) == cli.UNUSABLE
    assert "endpoint.failed" in capsys.readouterr().err
    assert _run("record", "embedded:whisper-nano", folder / "a.wav", "--endpoint", server.url, "--out", folder) == 3
    assert "--served" in capsys.readouterr().err


def test_verify_and_convert_stored_responses_by_command(nano, honest, folder, capsys):
    stored, common = folder / "a.wav.json", ["--model", "embedded:whisper-nano", "--device", "cpu"]
    stored.write_text(json.dumps(chat(nano, honest[0], tokens="numeric")))
    asked = ["--language", "en", "--audio", folder / "a.wav"]
    assert _run("verify", stored, *common, *asked, "--from", "gonka", "--profile", "provisional") == cli.PASSED
    assert _run("verify", stored, *common, *asked, "--from", "nobody") == cli.UNUSABLE
    assert "known: openai, vllm, gonka" in capsys.readouterr().err
    made, back = folder / "a.wav.evidence.json", folder / "back.json"
    assert _run("convert", stored, made, *common, *asked, "--from", "gonka") == cli.PASSED
    assert _run("verify", made, *common, "--policy", "listed", "--profile", "provisional", "--audio", folder) == 0
    assert _run("convert", made, back, *common, "--to", "gonka") == cli.PASSED
    theirs = json.loads(stored.read_text())["choices"][0]["logprobs"]["content"]
    ours = json.loads(back.read_text())["choices"][0]["logprobs"]["content"]
    assert [row["token"] for row in ours] == [row["token"] for row in theirs]
    assert np.allclose([row["logprob"] for row in ours], [row["logprob"] for row in theirs], atol=1e-6)
    assert _run("convert", made, back, *common, "--to", "enforced") == cli.PASSED
    assert len(json.loads(back.read_text())["tokens"]) == len(theirs)
    assert _run("convert", made, back, *common) == cli.UNUSABLE
    stored.write_text("{}")
    assert _run("verify", stored, *common, *asked, "--from", "gonka", "--profile", "provisional") == cli.INCONCLUSIVE
