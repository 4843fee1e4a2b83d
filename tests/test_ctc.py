"""The ctc family: every broken rule has its finding, statistics equal independent values.

Honest twins and cheats are in test_frame_cheats, for all frame-synchronous families at once.
"""

from __future__ import annotations

import itertools

import frame_cases
import numpy as np
import pytest
import tiny_models
import torch

import earmark
from earmark.fingerprint import alignment
from earmark.verifiers._ctc_trace import Trace


@pytest.fixture(scope="module")
def bench(tmp_path_factory, clips):
    model = earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("ctc"), "ctc", seed=1), device="cpu")
    return frame_cases.Bench(model, Trace, frame_cases.without_language(clips[:4]))


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
def test_impossible_fields_are_named(bench, fields, code):
    assert bench.broken(**fields) == [code]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
@pytest.mark.parametrize("name", ["chosen", "blank", "entropy", "power"])
def test_numbers_that_no_softmax_gives_are_named(bench, name, value):
    values = bench.parts()[name]
    values[3] = 1e3 if value == 0.5 and name in ("entropy", "power") else value
    assert bench.broken(**{name: values}) == ["trace.value"]


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
def test_lists_that_contradict_themselves_are_named(bench, change, code):
    change(parts := bench.parts())
    assert bench.broken(ids=parts["ids"], logprobs=parts["logprobs"], blank=parts["blank"]) == [code]


def test_a_path_that_is_not_greedy_is_found_by_its_margin(bench):
    """The provider drops a word and puts blanks in its place, with the honest numbers of every frame."""
    parts, blank_id = bench.parts(), bench.model.blank_id
    path = parts["path"].ravel()
    tokens = alignment.ctc_tokens(path, blank_id)
    path[tokens == 1] = blank_id
    rows = np.arange(len(path))
    listed = parts["ids"].reshape(len(path), -1)
    at = (listed == path[:, None]).argmax(axis=1)
    chosen = np.where((listed == path[:, None]).any(axis=1), parts["logprobs"][rows, at], parts["blank"].ravel())
    ids = path[alignment.first_positions(alignment.ctc_tokens(path, blank_id))].tolist()
    assert len(ids) == len(bench.evidence[0].segments[0].ids) - 1
    assert "margin.exceeded" in bench.broken(emitted=ids, path=path, chosen=chosen.astype("<f4"))


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


def test_recorded_numbers_equal_plain_softmax(bench):
    model, asked = bench.model, bench.asked
    family = earmark.loading.family_of(model)
    scores = family.read(bench.evidence[2].segments[0], asked[2].request, model, "sketch")
    with torch.inference_mode():
        encoded = model.encode([asked[2].audio.samples])
        p = model.logits(encoded)[0, : scores.frames].double().softmax(-1).numpy()
    assert scores.chosen == pytest.approx(np.log(p.max(axis=1)), abs=1e-4)
    assert scores.entropy == pytest.approx(-(p * np.log(p)).sum(axis=1), abs=1e-4)
    assert scores.power == pytest.approx(np.log((p**0.33).sum(axis=1)), abs=1e-4)
    assert scores.blank == pytest.approx(np.log(p[:, model.blank_id]), abs=1e-4)


def test_the_command_line_records_and_verifies(tmp_path, bench, capsys):
    from earmark.cli import main

    folder = tiny_models.parakeet(tmp_path / "model", "ctc", seed=1)
    clip = tmp_path / "clip.flac"
    earmark.audio.write(clip, bench.asked[0].audio)
    model = ["--model", str(folder), "--device", "cpu"]
    assert main(["record", str(folder), str(clip), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    asked_for = ["--audio", str(clip), "--profile", "provisional", "--json"]
    assert main(["verify", str(tmp_path / "out"), *model, *asked_for]) == 0
    assert '"PASS"' in capsys.readouterr().out
