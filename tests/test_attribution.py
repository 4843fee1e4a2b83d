"""The matched filter names the cheat that ran, and none for honest evidence or a cheat outside the library."""

from __future__ import annotations

import math

import numpy as np
import pytest

import earmark
from earmark import Case, attribution
from earmark.errors import UsageError
from earmark.fingerprint.matched import along, matched_filter, share
from earmark.scenarios import scenario
from earmark.scenarios.weights import float8, quantise


@pytest.fixture
def short_library(monkeypatch):
    """Two recipes, to spare replays."""
    monkeypatch.setattr(attribution, "library", lambda: [quantise(bits=8), float8()])


def names(model, clips, provider):
    """Record as a provider, verify, and return what each clip looks like."""
    evidence = provider.record(model, clips)
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return [v.attribution for v in earmark.verify_many(cases, model, profile="provisional", attribution="always")]


def test_projection_and_rest():
    rng = np.random.default_rng(0)
    reference, direction = rng.standard_normal((2, 400))
    noise = 0.05 * rng.standard_normal(400)
    ran = matched_filter(reference + direction + noise, reference, reference + direction)
    honest = matched_filter(reference + noise, reference, reference + direction)
    assert ran.projection == pytest.approx(1, abs=0.01)
    assert ran.unexplained < 0.01
    assert abs(honest.projection) < 0.01
    assert honest.unexplained > 1
    half = matched_filter(reference + direction / 2, reference, reference + direction)
    assert half.projection == pytest.approx(0.5)


def test_the_share_and_its_error_hold_under_noise_of_any_size():
    """Noise as large as the direction, ten times as large at every fifth position, as rounding to 16 bits has it."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(300) % 5, 0.05, 0.5)[:, None]
    direction, zero = scale * rng.standard_normal((300, 8)), np.zeros((300, 8))
    for true in (0.0, 0.5, 1.0):
        found = [share(true * direction + scale * rng.standard_normal((300, 8)), direction) for _ in range(300)]
        errors = np.asarray([(estimate - true) / error for estimate, error in found])
        assert abs(errors.mean()) < 0.2
        assert 0.85 < errors.std() < 1.15, "the error is the spread that there is"
    ran = matched_filter(direction + scale * rng.standard_normal((300, 8)), zero, direction)
    assert ran.unexplained > 0.4
    assert ran.sure > 10
    assert math.isnan(share(direction, zero)[0])


@pytest.mark.usefixtures("short_library")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_under_16_bits_a_cheat_is_named_behind_the_noise(clips, dtype):
    model = earmark.load("embedded:parakeet-ctc-nano", device="cpu", dtype=dtype)
    some = clips[:2]
    assert all(name.startswith("int8 (T = ") for name in names(model, some, scenario("quantise")))
    for other in (scenario("honest", batch_size=1), scenario("quantise", symmetric=False)):
        assert all(name.startswith("none of the known") for name in names(model, some, other))


def test_censored_and_equal_values():
    censored = matched_filter(np.array([np.nan, 2.0]), np.array([0.0, 1.0]), np.array([5.0, 2.0]))
    assert censored.projection == 1.0
    assert math.isnan(matched_filter(np.ones(3), np.zeros(3), np.zeros(3)).projection)
    wild = matched_filter(np.array([-900.0, 0.0]), np.zeros(2), np.array([-1.0, -1.0]))
    assert abs(wild.projection) <= 5, "one value cannot decide alone"


def test_along_takes_ragged_and_empty_lists():
    rng = np.random.default_rng(1)
    direction = rng.standard_normal((20, 8))
    whole = along(direction, direction)
    ragged = np.where(rng.random((20, 8)) < 0.3, np.nan, direction)
    assert 0 < along(ragged, direction) < whole, "what is not said tells nothing"
    silent = direction.copy()
    silent[::2] = np.nan
    assert 0 < along(silent, direction) < whole
    assert along(direction + 3.0, direction) == pytest.approx(whole), "a moved normaliser is no deviation"
    for nothing in (np.full((20, 8), np.nan), np.empty((0, 8)), np.empty((3, 0))):
        assert math.isnan(along(nothing, direction[: len(nothing), : nothing.shape[1]]))
    assert along(-direction, direction) == 0, "the other way is no sign of this cheat"


@pytest.mark.usefixtures("short_library")
def test_the_cheat_that_ran_is_named(nano, clips):
    assert all(name.startswith("int8 (T = 1.0") for name in names(nano, clips[:2], scenario("quantise")))
    assert all(name.startswith("fp8 (T = 1.0") for name in names(nano, clips[:2], scenario("float8")))


@pytest.mark.usefixtures("short_library")
@pytest.mark.parametrize(
    "provider", [scenario("honest", batch_size=1), scenario("quantise", symmetric=False), scenario("low_rank")]
)
def test_none_is_named_for_honest_evidence_and_others(nano, clips, provider):
    assert all(name.startswith("none of the known") for name in names(nano, clips[:2], provider))


@pytest.mark.usefixtures("short_library")
def test_frame_synchronous_models_too(clips):
    import frame_cases

    model = earmark.load("embedded:parakeet-tdt-nano", device="cpu")
    chosen = frame_cases.without_language(clips[:2])
    assert all(name.startswith("int8 (T = 1.0") for name in names(model, chosen, scenario("quantise")))


def test_only_where_it_was_asked_for(nano, clips):
    evidence = scenario("quantise", bits=4).record(nano, clips[:1])[0]
    clip = clips[0]
    silent = earmark.verify(evidence, clip.request, clip.audio, nano, profile="provisional", attribution="never")
    assert (silent.outcome, silent.attribution) == ("FAIL", None)
    with pytest.raises(UsageError, match="on_fail"):
        earmark.verify(evidence, clip.request, clip.audio, nano, attribution="sometimes")


def test_a_fault_in_naming_changes_no_verdict(nano, clips, monkeypatch):
    def broken():
        raise RuntimeError("no library today")

    monkeypatch.setattr(attribution, "library", broken)
    evidence = scenario("quantise", bits=4).record(nano, clips[:1])[0]
    verdict = earmark.verify(evidence, clips[0].request, clips[0].audio, nano, profile="provisional")
    assert (verdict.outcome, verdict.attribution) == ("FAIL", None)


@pytest.mark.usefixtures("short_library")
def test_compact_evidence_takes_no_name_from_its_neighbours(nano, clips):
    """It lists no single values; who shares its batch is named as before."""
    cheap = scenario("quantise")
    compact, whole = (cheap.record(nano, clips[:1], level=level)[0] for level in ("compact", "scores"))
    cases = [Case(evidence=e, audio=clips[0].audio, request=clips[0].request) for e in (compact, whole)]
    policy = earmark.Policy(accept_compact=True)
    verdicts = list(earmark.verify_many(cases, nano, profile="provisional", policy=policy, attribution="always"))
    assert verdicts[1].attribution.startswith("int8 (T = 1.0")
    assert verdicts[0].attribution is None or verdicts[0].attribution.startswith("none of the known")
