"""The transducer family: honest twins pass, every broken rule has its finding, statistics equal independent values."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import frame_cases
import numpy as np
import pytest
import tiny_models
import torch

import earmark
from earmark import Clip, lattice, record_many
from earmark.greedy import greedy_steps
from earmark.protocols import SegmentOutput, Step
from earmark.scenarios import scenario
from earmark.verifiers._transducer_path import allowed_durations, as_path, symbols_so_far
from earmark.verifiers._transducer_trace import Trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.parakeet(tmp_path_factory.mktemp("tdt"), "tdt", seed=1)


@pytest.fixture(scope="module")
def model(folder):
    return earmark.load(folder, device="cpu")


@pytest.fixture(scope="module")
def rnnt(tmp_path_factory):
    """An RNN-T checkpoint that often reaches its limit of tokens per frame."""
    return earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("rnnt"), "rnnt", seed=1), device="cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another checkpoint of the same shape and vocabulary."""
    return earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("other"), "tdt", seed=4), device="cpu")


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


def test_honest_evidence_passes_without_a_finding(model, rnnt, asked, evidence):
    for network, own in ((model, evidence), (rnnt, list(record_many(rnnt, asked, level="sketch", batch_size=3)))):
        for verdict in frame_cases.verify(network, asked, own):
            assert (verdict.outcome, verdict.findings) == ("PASS", ())
            assert verdict.fingerprint["logprob_l1"] < 1e-4
            assert np.isnan(verdict.fingerprint["duration_l1"]) == (network is rnnt)


def test_reexecution_finds_the_same_tokens(model, asked, evidence):
    assert frame_cases.outcomes(model, asked, evidence, mode="reexecute") == ["PASS"] * len(asked)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_honest_16_bit_passes(folder, asked, dtype):
    model = earmark.load(folder, device="cpu", dtype=dtype)
    verdicts = frame_cases.verify(model, asked, list(record_many(model, asked, level="sketch", batch_size=2)))
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(asked)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) > 0


# Broken rules, each with its finding


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"frames": 10}, "frames.mismatch"),
        ({"steps": 9}, "trace.malformed"),
        ({"steps": 400_000}, "token.count"),
        ({"strategy": "nar"}, "strategy.mismatch"),
        ({"strategy": "x"}, "trace.malformed"),
        ({"path": b""}, "trace.malformed"),
        ({"durations": b""}, "trace.malformed"),
        ({"log_likelihood": 0.5}, "trace.value"),
        ({"log_likelihood": float("inf")}, "trace.value"),
        ({"log_likelihood": -1e5}, "trace.contradiction"),
        ({"emitted": (1, 2, 3)}, "path.mismatch"),
        ({"emitted": (5,) * 400}, "token.count"),
        ({"emitted": (10_000,)}, "token.unknown"),
    ],
)
def test_impossible_fields_are_named(broken, fields, code):
    assert broken(**fields) == [code]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.__setitem__((2, 0), 1000), "path.order"),
        (lambda path: path.__setitem__((2, 0), -1), "path.order"),
        (lambda path: path.__setitem__(slice(None), path[::-1].copy()), "path.order"),
        (lambda path: path.__setitem__((2, 2), 7), "path.duration"),
        (lambda path: path.__setitem__((2, 2), -1), "path.duration"),
        (lambda path: path.__setitem__((1, 2), (path[1, 2] + 1) % 4), "path.gap"),
        (lambda path: path.__setitem__((slice(None), 0), np.minimum(path[:, 0] + 1, path[-1, 0])), "path.gap"),
        (lambda path: path.__setitem__((-1, 2), 1), "path.end"),
        (lambda path: path.__setitem__((2, 1), 10_000), "token.unknown"),
        (lambda path: path.__setitem__((2, 1), -1), "token.unknown"),
        (lambda path: path.__setitem__((2, 1), (path[2, 1] + 1) % 30), "path.mismatch"),
    ],
)
def test_paths_that_no_decoding_takes_are_named(broken, parts, change, code):
    path = parts["path"].reshape(-1, 3)
    change(path)
    assert broken(path=path) == [code]


@pytest.mark.parametrize("name", ["chosen", "blank", "entropy", "power", "durations"])
def test_numbers_that_are_not_finite_are_named(broken, parts, name):
    parts[name][2] = np.nan
    assert broken(**{name: parts[name]}) == ["trace.value"]


def test_durations_must_be_a_distribution(broken, parts):
    parts["durations"][2] = -3.0
    assert broken(durations=parts["durations"]) == ["trace.mass"]


def test_an_edited_token_is_found_by_its_margin(model, asked, evidence, parts):
    """One token of the path becomes another, with a value that the lists allow."""
    path, listed = parts["path"].reshape(-1, 3), parts["ids"]
    step = int(np.flatnonzero(path[:, 1] != model.blank_id)[1])
    place = next(j for j in range(1, 8) if listed[step, j] != model.blank_id)
    path[step, 1], parts["chosen"][step] = listed[step, place], parts["logprobs"][step, place]
    emitted = [int(s) for s in path[:, 1] if s != model.blank_id]
    edited = frame_cases.changed(
        evidence[0], Trace, model, emitted=emitted, path=path, chosen=parts["chosen"], log_likelihood=-1.0
    )
    assert "margin.exceeded" in frame_cases.codes(frame_cases.verify(model, asked[:1], [edited])[0])


def test_an_edited_duration_is_found_by_its_margin(model, asked, evidence, parts):
    """The last token is said to last longer: the transcript, the symbols and all numbers stay."""
    path = parts["path"].reshape(-1, 3)
    path[-1, 2] = 4 if path[-1, 2] < 4 else 3
    edited = frame_cases.changed(evidence[0], Trace, model, path=path, log_likelihood=-1.0)
    found = frame_cases.verify(model, asked[:1], [edited])[0]
    assert "margin.exceeded" in frame_cases.codes(found)
    assert found.fingerprint["duration_margin_mismatches"] == 1
    assert found.fingerprint["margin_mismatches"] == 0


# Cheats


def test_fabricated_scores_with_the_right_transcript_fail(model, other, asked, evidence):
    """The cheat writes the reference's own transcript and path, with the numbers of another checkpoint."""
    family = earmark.loading.family_of(model)
    items = [earmark.recording.segment_inputs(clip, model)[0] for clip in asked]
    outputs = [SegmentOutput(ids=e.segments[0].ids, text=e.text, trace=e.segments[0].trace) for e in evidence]
    scored = family.score(other, items, outputs, k=8, level="sketch", batch_size=4, advance=lambda _: None)
    for item, real, output, clip in zip(items, evidence, scored, asked, strict=True):
        assert output.ids == real.segments[0].ids
        forged = earmark.recording.assemble(model, clip, [item], [output], level="sketch")
        codes = frame_cases.codes(frame_cases.verify(model, [clip], [forged])[0])
        assert "statistics.logprob_l1" in codes
        assert "margin.exceeded" not in codes, "the path is the reference's own"


@pytest.mark.parametrize(
    ("name", "options"),
    [("quantise", {"bits": 8}), ("quantise", {"bits": 4, "group": 16}), ("drop_audio", {"seconds": 0.5})],
)
def test_scenarios_fail_on_every_clip(model, asked, name, options):
    cheated = scenario(name, **options).record(model, asked, level="sketch")
    assert frame_cases.outcomes(model, asked, cheated) == ["FAIL"] * len(asked)


def test_other_checkpoint_and_rescoring_fail_and_the_reference_itself_passes(model, other, asked):
    cheated = scenario("other_checkpoint", model=other).record(model, asked)
    assert frame_cases.outcomes(model, asked, cheated) == ["FAIL"] * len(asked)
    same = scenario("other_checkpoint", model=model).record(model, asked)
    assert frame_cases.outcomes(model, asked, same) == ["PASS"] * len(asked)
    rescored = scenario("rescored", writer=other).record(model, asked)
    for verdict in frame_cases.verify(model, asked, rescored):
        assert "margin.exceeded" in frame_cases.codes(verdict)
        assert verdict.fingerprint["logprob_l1"] < 1e-4


def test_restamped_evidence_fails_by_its_sketch(model, asked, evidence):
    import msgspec

    again = Clip(audio=asked[0].audio, request=earmark.request(asked[0].audio, nonce="f" * 32))
    restamped = msgspec.structs.replace(evidence[0], request_digest=again.request.digest(), request=again.request)
    assert frame_cases.codes(frame_cases.verify(model, [again], [restamped])[0]) == ["statistics.sketch_distance"]


# The path and its limits


def test_the_last_token_of_a_full_frame_is_forced_on(rnnt, asked):
    """Real greedy paths reach the limit of tokens per frame; such a token has duration 1, and reading accepts it."""
    with torch.inference_mode():
        steps = rnnt.greedy(rnnt.encode([asked[0].audio.samples]))[0]
    path = as_path(steps, 10**6, rnnt)
    spoken = path[:, 1] != rnnt.blank_id
    full = symbols_so_far(path, spoken) == rnnt.max_symbols
    assert full.sum() >= 3
    assert (path[spoken, 2] == full[spoken]).all()


def test_a_decoder_that_never_ends_is_cut_and_still_passes(asked, tmp_path):
    """A TDT whose tokens never move on: the library stops at its limit, we at the tokens that the audio allows."""
    from earmark.limits import max_tokens

    model = earmark.load(tiny_models.parakeet(tmp_path, "tdt", seed=1), device="cpu")
    with torch.no_grad():
        model.module.joint.head.bias[3] += 50.0
        model.module.joint.head.bias[model.info.vocab_size] += 50.0  # duration 0
    evidence = list(record_many(model, asked[:1]))
    assert len(evidence[0].segments[0].ids) == max_tokens(len(asked[0].audio.samples))
    assert frame_cases.outcomes(model, asked[:1], evidence) == ["PASS"]


def test_durations_that_lead_to_a_step():
    rules = SimpleNamespace(durations=(0, 1, 3), max_symbols=2)
    path = np.array([[0, 5, 0], [0, 6, 1], [1, 9, 1], [2, 5, 1], [3, 5, 0]])
    spoken = np.array([True, True, False, True, True])
    expected = [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert allowed_durations(path, spoken, rules).astype(int).tolist() == expected


def _toy(logits: torch.Tensor, **options) -> list[Step]:
    """Decode logits (frames, vocab) that depend on the frame alone."""
    frames = torch.eye(len(logits))
    predictor = lambda tokens, memory: (torch.zeros(len(tokens), 1), (tokens[:, None],))  # noqa: ARG005, E731
    return greedy_steps([frames], predictor=predictor, joint=lambda f, _: f @ logits, blank=0, **options)[0]


def test_big_blanks_move_on_by_their_duration():
    logits = torch.tensor([[0.0, 9.0, 1.0], [0.0, 1.0, 9.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    steps = _toy(logits, big_blanks={2: 3}, max_symbols=1)
    assert steps == [Step(0, 1, 1), Step(1, 2, 3), Step(4, 0, 1)]


def test_a_blank_of_duration_0_moves_on_by_1():
    logits = torch.tensor([[9.0, 0.0, 9.0, 0.0], [0.0, 9.0, 0.0, 9.0]])
    assert _toy(logits, durations=(0, 2), max_symbols=0) == [Step(0, 0, 1), Step(1, 1, 2)]


# Numbers against enumeration


def _enumerate(tokens: np.ndarray, durations: np.ndarray, classes: list[int], emitted: tuple[int, ...]):
    """Sum over all paths of an open-ended TDT lattice; return log P and the posterior of each token at each frame."""
    frames, occupancy = tokens.shape[0], np.zeros((tokens.shape[0], len(emitted)))

    def walk(t: int, u: int, mass: float, path: list[tuple[int, int]]) -> float:
        if t >= frames:
            if u < len(emitted):
                return 0.0
            for frame, token in path:
                occupancy[frame, token] += mass
            return mass
        total = 0.0
        for d, duration in enumerate(classes):
            blank = mass * tokens[t, u, -1] * durations[t, u, d]
            total += walk(t + max(duration, 1), u, blank, path)
            if u < len(emitted):
                label = mass * tokens[t, u, emitted[u]] * durations[t, u, d]
                total += walk(t + duration, u + 1, label, [*path, (t, u)])
        return total

    total = walk(0, 0, 1.0, [])
    return np.log(total), occupancy / total


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_and_occupancy_equal_enumeration(seed):
    torch.manual_seed(seed)
    classes, emitted = [0, 1, 2], (1, 0)
    logits = torch.randn(1, 4, 3, 4 + len(classes), dtype=torch.float64)
    tokens = logits[0, ..., :4].softmax(-1).numpy()
    durations = logits[0, ..., 4:].softmax(-1).numpy()
    expected, occupancy = _enumerate(tokens, durations, classes, emitted)
    solved = lattice.transducer(logits, [emitted], [4], [2], 3, durations=classes, rule="open_end")
    assert solved.log_likelihood[0] == pytest.approx(expected, abs=1e-9)
    assert solved.token_occupancy[0] == pytest.approx(occupancy, abs=1e-9)


def test_log_p_sums_to_one_over_all_transcripts():
    """RNN-T with an open end is a proper distribution: all transcripts of a tiny lattice have mass 1 together.

    The lattice of 2 frames holds every transcript; those of more than 6 tokens are left out, and their mass is small.
    """
    torch.manual_seed(3)
    total = 0.0
    blank_first = torch.tensor([0.0, 0.0, 2.0])
    for count in range(7):
        for emitted in itertools.product((0, 1), repeat=count):
            states = [
                torch.zeros(3) + 0.3 * sum(emitted[:u]) * torch.tensor([1.0, -1.0, 0.0]) for u in range(count + 1)
            ]
            logits = (torch.stack(states) + blank_first)[None, None].expand(1, 2, -1, -1).double()
            solved = lattice.transducer(logits, [list(emitted)], [2], [count], 2, rule="open_end")
            total += float(np.exp(solved.log_likelihood[0]))
    assert 0.99 < total <= 1.0
