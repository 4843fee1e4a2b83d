"""The ctc family: honest twins pass, every broken rule has its finding, statistics equal independent values."""

from __future__ import annotations

import itertools

import frame_cases
import msgspec
import numpy as np
import pytest
import tiny_models
import torch

import earmark
from earmark import Clip, record_many
from earmark.errors import UsageError
from earmark.fingerprint import alignment
from earmark.scenarios import scenario
from earmark.verifiers._ctc_trace import Trace


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("ctc"), "ctc", seed=1), device="cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another checkpoint of the same shape and vocabulary."""
    return earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("other"), "ctc", seed=2), device="cpu")


@pytest.fixture(scope="module")
def asked(clips):
    return frame_cases.without_language(clips[:4])


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, level="sketch", batch_size=4))


@pytest.fixture
def broken(model, asked, evidence):
    """Return a function: the codes that evidence of the first clip gets with fields of its trace replaced."""

    def run(**fields):
        changed = frame_cases.changed(evidence[0], Trace, model, **fields)
        return frame_cases.codes(frame_cases.verify(model, asked[:1], [changed])[0])

    return run


@pytest.fixture
def parts(evidence):
    return frame_cases.arrays(frame_cases.open_trace(evidence[0], Trace))


# Honest


def test_honest_evidence_passes_without_a_finding(model, asked, evidence):
    for verdict in frame_cases.verify(model, asked, evidence):
        assert (verdict.outcome, verdict.findings) == ("PASS", ())
        assert verdict.fingerprint["logprob_l1"] < 1e-4
        assert verdict.fingerprint.family == "ctc"


def test_reexecution_finds_the_same_tokens(model, asked, evidence):
    verdicts = frame_cases.verify(model, asked, evidence, mode="reexecute")
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(asked)


# Broken rules, each with its finding


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"frames": 10}, "frames.mismatch"),
        ({"path": b"\0" * 7}, "trace.malformed"),
        ({"path": np.full(36, 10_000)}, "token.unknown"),
        ({"path": np.full(36, -1)}, "token.unknown"),
        ({"ids": b""}, "trace.malformed"),
        ({"sketch": b""}, "trace.malformed"),
        ({"k": 500}, "trace.malformed"),
        ({"log_likelihood": 0.5}, "trace.value"),
        ({"log_likelihood": float("nan")}, "trace.value"),
        ({"log_likelihood": -1e5}, "trace.contradiction"),
        ({"log_likelihood": "x"}, "trace.malformed"),
        ({"emitted": (1, 2, 3)}, "path.mismatch"),
        ({"emitted": (5,) * 40}, "token.count"),
    ],
)
def test_impossible_fields_are_named(broken, fields, code):
    assert broken(**fields) == [code]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
@pytest.mark.parametrize("name", ["chosen", "blank", "entropy", "power"])
def test_numbers_that_no_softmax_gives_are_named(broken, parts, name, value):
    values = parts[name]
    values[3] = 1e3 if value == 0.5 and name in ("entropy", "power") else value
    assert broken(**{name: values}) == ["trace.value"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p["ids"].__setitem__((2, 0), p["ids"][2, 1]), "trace.duplicate"),
        (lambda p: p["logprobs"].__setitem__((2, slice(None)), p["logprobs"][2, ::-1].copy()), "trace.order"),
        (lambda p: p["logprobs"].__setitem__((2, slice(None)), -0.5), "trace.mass"),
        (lambda p: p["ids"].__setitem__((2, 0), -3), "trace.malformed"),
        (lambda p: p["blank"].__setitem__(2, -1e-3), "trace.contradiction"),
        (lambda p: p["logprobs"].__setitem__((2, slice(None)), np.nan), "trace.censored"),
    ],
)
def test_lists_that_contradict_themselves_are_named(broken, parts, change, code):
    change(parts)
    assert broken(ids=parts["ids"], logprobs=parts["logprobs"], blank=parts["blank"]) == [code]


def test_a_path_that_is_not_greedy_is_found_by_its_margin(model, asked, evidence, parts):
    """The provider drops a word and puts blanks in its place, with the honest numbers of every frame."""
    trace = frame_cases.open_trace(evidence[0], Trace)
    path = parts["path"].ravel()
    tokens = alignment.ctc_tokens(path, model.blank_id)
    path[tokens == 1] = model.blank_id
    rows = np.arange(len(path))
    listed = parts["ids"].reshape(len(path), -1)
    at = (listed == path[:, None]).argmax(axis=1)
    chosen = np.where((listed == path[:, None]).any(axis=1), parts["logprobs"][rows, at], parts["blank"].ravel())
    ids = path[alignment.first_positions(alignment.ctc_tokens(path, model.blank_id))].tolist()
    edited = frame_cases.changed(evidence[0], Trace, model, emitted=ids, path=path, chosen=chosen.astype("<f4"))
    assert len(ids) == len(evidence[0].segments[0].ids) - 1
    assert trace.frames == len(path)
    assert "margin.exceeded" in frame_cases.codes(frame_cases.verify(model, asked[:1], [edited])[0])


# Cheats


def test_evidence_of_another_clip_is_found(model, asked, evidence):
    foreign = msgspec.structs.replace(evidence[1], request_digest=asked[0].request.digest(), request=asked[0].request)
    verdict = frame_cases.verify(model, asked[:1], [foreign])[0]
    assert verdict.outcome == "FAIL"


def test_fabricated_scores_with_the_right_transcript_fail(model, other, asked, evidence):
    """The cheat writes the reference's own transcript and path, with the numbers of another checkpoint."""
    family = earmark.loading.family_of(model)
    items = [earmark.recording.segment_inputs(clip, model)[0] for clip in asked]
    outputs = [
        earmark.protocols.SegmentOutput(ids=e.segments[0].ids, text=e.text, trace=e.segments[0].trace) for e in evidence
    ]
    scored = family.score(other, items, outputs, k=8, level="sketch", batch_size=4, advance=lambda _: None)
    for item, real, output, clip in zip(items, evidence, scored, asked, strict=True):
        assert output.ids == real.segments[0].ids
        forged = earmark.recording.assemble(model, clip, [item], [output], level="sketch")
        verdict = frame_cases.verify(model, [clip], [forged])[0]
        assert verdict.outcome == "FAIL"
        assert "statistics.logprob_l1" in frame_cases.codes(verdict)
        assert "margin.exceeded" not in frame_cases.codes(verdict), "the path is the reference's own"


@pytest.mark.parametrize(
    ("name", "options"),
    [("quantise", {"bits": 8}), ("quantise", {"bits": 4, "group": 16}), ("drop_audio", {"seconds": 0.5})],
)
def test_scenarios_fail_on_every_clip(model, asked, name, options):
    cheated = scenario(name, **options).record(model, asked, level="sketch")
    assert frame_cases.outcomes(model, asked, cheated) == ["FAIL"] * len(asked)


def test_other_checkpoint_fails_and_the_reference_itself_passes(model, other, asked):
    cheated = scenario("other_checkpoint", model=other).record(model, asked)
    assert frame_cases.outcomes(model, asked, cheated) == ["FAIL"] * len(asked)
    same = scenario("other_checkpoint", model=model).record(model, asked)
    assert frame_cases.outcomes(model, asked, same) == ["PASS"] * len(asked)


def test_rescoring_is_found_by_the_path(model, other, asked):
    """The cheap model writes, the real one scores: honest numbers along a path that it would not have taken."""
    for verdict in frame_cases.verify(model, asked, scenario("rescored", writer=other).record(model, asked)):
        assert verdict.outcome == "FAIL"
        assert "margin.exceeded" in frame_cases.codes(verdict)
        assert verdict.fingerprint["logprob_l1"] < 1e-4


def test_restamped_evidence_fails_by_its_sketch(model, asked, evidence):
    again = Clip(audio=asked[0].audio, request=earmark.request(asked[0].audio, nonce="f" * 32))
    restamped = msgspec.structs.replace(evidence[0], request_digest=again.request.digest(), request=again.request)
    assert frame_cases.codes(frame_cases.verify(model, [again], [restamped])[0]) == ["statistics.sketch_distance"]


def test_a_model_of_another_family_is_refused(nano, asked, evidence):
    assert "family.mismatch" in frame_cases.codes(frame_cases.verify(nano, asked[:1], evidence[:1])[0])


def test_unknown_k_is_refused(model, asked):
    with pytest.raises(UsageError, match="lists between 1 and"):
        list(record_many(model, asked[:1], k=10_000))


# Numbers against enumeration


def _enumerated(probabilities: np.ndarray, emitted: tuple[int, ...], blank: int):
    """Return P(transcript) and the posterior of each token at each frame by summing over all paths."""
    frames, vocab = probabilities.shape
    total, occupancy = 0.0, np.zeros((frames, len(emitted)))
    for path in itertools.product(range(vocab), repeat=frames):
        joined = [s for i, s in enumerate(path) if s != blank and (i == 0 or s != path[i - 1])]
        if tuple(joined) != emitted:
            continue
        mass = float(np.prod(probabilities[np.arange(frames), path]))
        total += mass
        for t, token in enumerate(alignment.ctc_tokens(np.array(path), blank)):
            if token >= 0:
                occupancy[t, token] += mass
    return total, occupancy / total


def test_likelihood_occupancy_and_times_equal_enumeration():
    from earmark.verifiers import ctc

    class Toy:
        blank_id = 0

    torch.manual_seed(0)
    logits = torch.randn(5, 4) * 2
    emitted = (2, 3)
    total, occupancy = _enumerated(logits.double().softmax(-1).numpy(), emitted, 0)
    solved = ctc._lattice(Toy(), [logits], [emitted])
    assert solved.log_likelihood[0] == pytest.approx(np.log(total), abs=1e-6)
    assert solved.token_occupancy[0] == pytest.approx(occupancy, abs=1e-6)
    times = (occupancy * np.arange(5)[:, None]).sum(axis=0) / occupancy.sum(axis=0)
    assert solved.token_time_mean[0] == pytest.approx(times, abs=1e-6)


def test_recorded_numbers_equal_plain_softmax(model, asked, evidence):
    family = earmark.loading.family_of(model)
    scores = family.read(evidence[2].segments[0], asked[2].request, model, "sketch")
    with torch.inference_mode():
        encoded = model.encode([asked[2].audio.samples])
        p = model.logits(encoded)[0, : scores.frames].double().softmax(-1).numpy()
    assert scores.chosen == pytest.approx(np.log(p.max(axis=1)), abs=1e-4)
    assert scores.entropy == pytest.approx(-(p * np.log(p)).sum(axis=1), abs=1e-4)
    assert scores.power == pytest.approx(np.log((p**0.33).sum(axis=1)), abs=1e-4)
    assert scores.blank == pytest.approx(np.log(p[:, model.blank_id]), abs=1e-4)


def test_the_command_line_records_and_verifies(tmp_path, asked, capsys):
    from earmark.cli import main

    folder = tiny_models.parakeet(tmp_path / "model", "ctc", seed=1)
    clip = tmp_path / "clip.flac"
    earmark.audio.write(clip, asked[0].audio)
    model = ["--model", str(folder), "--device", "cpu"]
    assert main(["record", str(folder), str(clip), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    asked_for = ["--audio", str(clip), "--profile", "provisional", "--json"]
    assert main(["verify", str(tmp_path / "out"), *model, *asked_for]) == 0
    assert '"PASS"' in capsys.readouterr().out
