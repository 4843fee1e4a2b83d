"""The transducer family: every broken rule has its finding, statistics equal independent values.

Honest twins and cheats are in test_frame_cheats, for all frame-synchronous families at once.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import frame_cases
import numpy as np
import pytest
import tiny_models
import torch

import earmark
from earmark import lattice, record_many
from earmark.greedy import greedy_steps
from earmark.protocols import Step
from earmark.verifiers._transducer_path import allowed_durations, as_path, symbols_so_far
from earmark.verifiers._transducer_trace import Trace


@pytest.fixture(scope="module")
def bench(tmp_path_factory, clips):
    model = earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("tdt"), "tdt", seed=1), device="cpu")
    return frame_cases.Bench(model, Trace, frame_cases.without_language(clips[:4]))


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
def test_impossible_fields_are_named(bench, fields, code):
    assert bench.broken(**fields) == [code]


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
def test_paths_that_no_decoding_takes_are_named(bench, change, code):
    path = bench.parts()["path"].reshape(-1, 3)
    change(path)
    assert bench.broken(path=path) == [code]


@pytest.mark.parametrize("name", ["chosen", "blank", "entropy", "power", "durations"])
def test_numbers_that_are_not_finite_are_named(bench, name):
    values = bench.parts()[name]
    values[2] = np.nan
    assert bench.broken(**{name: values}) == ["trace.value"]


def test_durations_must_be_a_distribution(bench):
    durations = bench.parts()["durations"]
    durations[2] = -3.0
    assert bench.broken(durations=durations) == ["trace.mass"]


def test_an_edited_token_is_found_by_its_margin(bench):
    """One token of the path becomes another, with a value that the lists allow."""
    parts, blank_id = bench.parts(), bench.model.blank_id
    path, listed, chosen = parts["path"].reshape(-1, 3), parts["ids"], parts["chosen"]
    step = int(np.flatnonzero(path[:, 1] != blank_id)[1])
    place = next(j for j in range(1, 8) if listed[step, j] != blank_id)
    path[step, 1], chosen[step] = listed[step, place], parts["logprobs"][step, place]
    emitted = [int(s) for s in path[:, 1] if s != blank_id]
    assert "margin.exceeded" in bench.broken(emitted=emitted, path=path, chosen=chosen, log_likelihood=-1.0)


def test_an_edited_duration_is_found_by_its_margin(bench):
    """The last token is said to last longer: the transcript, the symbols and all numbers stay."""
    path = bench.parts()["path"].reshape(-1, 3)
    path[-1, 2] = 4 if path[-1, 2] < 4 else 3
    found = bench.edited(path=path, log_likelihood=-1.0)
    assert "margin.exceeded" in frame_cases.codes(found)
    assert found.fingerprint["duration_margin_mismatches"] == 1
    assert found.fingerprint["margin_mismatches"] == 0


# The path and its limits


def test_the_last_token_of_a_full_frame_is_forced_on(bench, tmp_path):
    """Real greedy paths reach the limit of tokens per frame; such a token has duration 1, and reading accepts it."""
    rnnt = earmark.load(tiny_models.parakeet(tmp_path, "rnnt", seed=1), device="cpu")
    with torch.inference_mode():
        steps = rnnt.greedy(rnnt.encode([bench.asked[0].audio.samples]))[0]
    path = as_path(steps, 10**6, rnnt)
    spoken = path[:, 1] != rnnt.blank_id
    full = symbols_so_far(path, spoken) == rnnt.max_symbols
    assert full.sum() >= 3
    assert (path[spoken, 2] == full[spoken]).all()


def test_a_decoder_that_never_ends_is_cut_and_still_passes(bench, tmp_path):
    """A TDT whose tokens never move on: the library stops at its limit, we at the tokens that the audio allows."""
    from earmark.limits import max_tokens

    model = earmark.load(tiny_models.parakeet(tmp_path, "tdt", seed=1), device="cpu")
    with torch.no_grad():
        model.module.joint.head.bias[3] += 50.0
        model.module.joint.head.bias[model.info.vocab_size] += 50.0  # duration 0
    evidence = list(record_many(model, bench.asked[:1]))
    assert len(evidence[0].segments[0].ids) == max_tokens(len(bench.asked[0].audio.samples))
    assert frame_cases.outcomes(model, bench.asked[:1], evidence) == ["PASS"]


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
