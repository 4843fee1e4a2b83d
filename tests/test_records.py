"""Records: strict, bounded, deterministic, never half written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.errors import EarmarkError, OutputError, RecordError, UsageError
from earmark.features import FeatureParameters
from earmark.records import codec
from earmark.records.evidence import Claim, Evidence, Segment, join_texts
from earmark.records.policy import Policy, load_policy
from earmark.records.receipt import Receipt
from earmark.records.request import Decoding, Request, Segmentation, make_request

GOLDEN = Path(__file__).parent / "golden" / "records"

REQUEST = Request(audio_digest="ab" * 32, audio_samples=48_000, language="en", prompt="Zoë, 北京", nonce="01" * 16)
FEATURES = FeatureParameters(
    sample_rate=16_000, n_fft=400, window_length=400, hop=160, window="hann-periodic", preemphasis=0.0, dither=0.0,
    n_mels=80, mel_scale="slaney", norm="slaney", log_floor=1e-10, normalisation="whisper", padded_samples=480_000,
    filters="cd" * 32,
)  # fmt: skip
EVIDENCE = Evidence(
    level="scores",
    request_digest=REQUEST.digest(),
    request=REQUEST,
    claim=Claim(
        model="some/model",
        family="autoregressive",
        weights="ef" * 32,
        precision="fp32",
        decoding=Decoding(),
        features=FEATURES,
        engine="transformers 5.23.0",
    ),
    text="hello",
    segments=(Segment(start=0, end=48_000, text=" hello", ids=(4, 7), trace=b"\x00\xff"),),
)
RECORDS = {
    "request": REQUEST,
    "receipt": EVIDENCE.receipt,
    "evidence": EVIDENCE,
    "policy": Policy(precisions=("fp32",), least_k=8),
}
DIGESTS = json.loads((GOLDEN / "digests.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORDS)
def test_record_survives_both_forms(name):
    record = RECORDS[name]
    for data in (record.to_json().encode(), record.to_msgpack()):
        assert codec.decode(data, type(record)) == record
        assert codec.decode(data, type(record)).digest() == record.digest()


@pytest.mark.parametrize("name", RECORDS)
def test_record_equals_the_golden_file(name):
    """A change here is a change of format: follow docs/how-to/change-a-format.md."""
    record = RECORDS[name]
    assert (GOLDEN / f"{name}.json").read_text(encoding="utf-8") == record.to_json() + "\n"
    assert (GOLDEN / f"{name}.msgpack").read_bytes() == record.to_msgpack()
    assert record.digest() == DIGESTS[name]


def test_digest_depends_on_the_type():
    class Receipt2(codec.Record, frozen=True, kw_only=True):
        format: str = "earmark.receipt/1"
        commitment: str
        inclusion: None = None

    one = Receipt(commitment="00" * 32)
    assert Receipt2(commitment="00" * 32).to_msgpack() == one.to_msgpack()
    assert Receipt2(commitment="00" * 32).digest() != one.digest()


@given(st.integers(0, len(EVIDENCE.to_msgpack()) - 1))
def test_truncated_evidence_is_refused(length):
    with pytest.raises(RecordError):
        codec.decode(EVIDENCE.to_msgpack()[:length], Evidence)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_without_a_crash(data):
    with pytest.raises(RecordError):
        codec.decode(data, Evidence)


def _json(**changes) -> bytes:
    return json.dumps({**json.loads(EVIDENCE.to_json()), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "record.malformed", "empty"),
        (b"   \n", "record.malformed", "empty"),
        (EVIDENCE.to_json()[:-40].encode(), "record.malformed", "not well formed"),
        (_json(format="earmark.evidence/2"), "record.unknown_version", "'earmark.evidence/2'"),
        (_json(extra=1), "record.malformed", "extra"),
        (_json(level="everything"), "record.malformed", "level"),
        (_json(request_digest="AB" * 32), "record.malformed", "request_digest"),
        (_json(segments=[]), "record.malformed", "segments"),
        (_json(text="x" * 1_000_001), "record.malformed", "text"),
        (REQUEST.to_json().encode(), "record.unknown_version", "earmark.request/1"),
        (b"[" * 100_000, "record.malformed", "not well formed"),
        (b'{"format":' + b"[" * 100_000, "record.malformed", "not well formed"),
        (b"\x81\xa6format" + b"\x91" * 100_000, "record.malformed", "not well formed"),
        (b"\xdd\xff\xff\xff\xff", "record.malformed", "not well formed"),
    ],
)
def test_malformed_evidence_is_named(data, code, words):
    with pytest.raises(RecordError, match=r".") as caught:
        codec.decode(data, Evidence)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_segment_bounds_are_checked():
    segment = {"start": -1, "end": 2, "text": "", "ids": [], "trace": ""}
    with pytest.raises(RecordError, match="start"):
        codec.decode(_json(segments=[segment]), Evidence)


def test_oversized_file_is_not_read_whole(tmp_path):
    big = tmp_path / "big.json"
    with big.open("wb") as file:
        file.truncate(10 * codec.MAX_RECORD_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecordError) as caught:
        codec.load(big, Evidence)
    assert caught.value.code == "record.too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * codec.MAX_RECORD_BYTES / 1024


def test_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="nothing-here"):
        codec.load(tmp_path / "nothing-here.json", Evidence)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_device_is_an_output_error():
    with pytest.raises(OutputError, match="No space left"):
        EVIDENCE.save("/dev/full")


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A file-size limit stands in for the full disk."""
    target = tmp_path / "evidence.json"
    target.write_text("old")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from earmark.records.codec import write_atomically; write_atomically(sys.argv[1], b'x' * 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=False)
    assert "OutputError" in done.stderr
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "beam"},
        {"strategy": "greedy", "beams": 4},
        {"strategy": "sample"},
        {"strategy": "greedy", "temperature": 0.5},
        {"strategy": "greedy", "seed": 3},
    ],
)
def test_decoding_has_one_form(options):
    with pytest.raises(ValueError, match="strategy"):
        Decoding(**options)


def test_decoding_is_checked_when_read():
    data = _json(request=None)
    claim = json.loads(data)["claim"]
    claim["decoding"] = {"strategy": "beam", "beams": 1}
    with pytest.raises(RecordError, match="strategy"):
        codec.decode(_json(claim=claim), Evidence)


def test_policy_is_read_from_toml(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('precisions = ["fp16", "fp32"]\nleast_k = 8\nrequire_receipt = true\n')
    assert load_policy(file) == Policy(precisions=("fp16", "fp32"), least_k=8, require_receipt=True)
    assert load_policy("strict").require_receipt
    for text, words in (
        ("least_k = 0", "least_k"),
        ("lest_k = 8", "lest_k"),
        ("a = ", "no policy"),
        ("\x00", "no pol"),
    ):
        file.write_text(text)
        with pytest.raises(RecordError, match=words):
            load_policy(file)


@pytest.mark.parametrize("options", [{"language": ""}, {"task": "summarise"}, {"prompt": "x" * 20_001}])
def test_impossible_request_is_refused(options):
    with pytest.raises(EarmarkError):
        make_request(audio_digest="00" * 32, audio_samples=16_000, lossless=True, **options)


def test_two_requests_differ_by_their_nonce():
    one, two = (make_request(audio_digest="00" * 32, audio_samples=16_000, lossless=True) for _ in range(2))
    assert one.digest() != two.digest()


def test_request_survives_extreme_numbers():
    record = Request(
        audio_digest="00" * 32,
        audio_samples=2**39,
        nonce="00" * 16,
        decoding=Decoding(strategy="sample", temperature=1e-300, seed=2**62),
        segmentation=Segmentation(boundaries=(1, 2, 3)),
    )
    for data in (record.to_json().encode(), record.to_msgpack()):
        assert codec.decode(data, Request) == record


def test_trace_bytes_survive_json():
    data = msgspec.json.decode(EVIDENCE.to_json().encode())
    assert data["segments"][0]["trace"] == "AP8="


def test_join_texts_skips_silence():
    assert join_texts([" a b", "  ", "c "]) == "a b c"
