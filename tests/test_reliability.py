"""The calibration signature: known values, an independent library, and a cheat that writes the same words."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import frame_cases
import numpy as np
import pytest
import tiny_models
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

import earmark
from earmark import record_many
from earmark.errors import UsageError
from earmark.fingerprint.reliability import correct_words, reliability, reliability_shifts
from earmark.scenarios import scenario
from earmark.signature import calibration_signature


@pytest.fixture(scope="module")
def spoken() -> list[str]:
    """What is said in the clips that ship with earmark."""
    manifest = Path(str(files("earmark.data"))) / "clips" / "manifest.jsonl"
    return [json.loads(line)["text"] for line in manifest.read_text(encoding="utf-8").splitlines()]


def _words(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and words that are right as often as the confidence says."""
    rng = np.random.default_rng(seed)
    confidences = rng.beta(5, 2, count)
    return confidences, rng.random(count) < confidences


def test_curve_and_brier_equal_an_independent_library():
    confidences, correct = _words(0)
    mine = reliability(confidences, correct, bins=8)
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=8)
    filled = mine.counts > 0
    assert mine.accuracy[filled] == pytest.approx(accuracy)
    assert mine.confidence[filled] == pytest.approx(confidence)
    assert mine.brier == pytest.approx(brier_score_loss(correct, confidences))
    assert mine.counts.sum() == mine.words == 4000


def test_ece_is_the_standard_one():
    """Scores of 0.25 and 0.875, half of the words right: |0.5 - 0.25| / 2 + |0.5 - 0.875| / 2 = 0.3125."""
    mine = reliability(np.array([0.25, 0.25, 0.875, 0.875]), np.array([True, False, True, False]), bins=2)
    assert mine.ece == pytest.approx(0.3125)


def test_nce_of_known_cases():
    right = np.array([True, True, True, False])
    assert reliability(np.full(4, 0.75), right).nce == pytest.approx(0.0), "no more than the accuracy"
    assert reliability(right.astype(float), right).nce == pytest.approx(1.0, abs=1e-4)
    assert reliability(1.0 - right, right).nce < -5.0
    assert np.isnan(reliability(np.array([0.5, 0.6]), np.array([True, True])).nce)


def test_calibrated_words_have_a_small_error_and_sharpened_ones_do_not():
    confidences, correct = _words(1)
    sharpened = confidences**0.25
    honest, cheat = reliability(confidences, correct), reliability(sharpened, correct)
    assert honest.ece < 0.03
    assert cheat.ece > 0.1
    assert honest.nce > cheat.nce


def test_shifts_are_0_for_the_same_numbers_and_grow_with_the_cheat():
    confidences, correct = _words(2)
    own = reliability(confidences, correct)
    assert set(reliability_shifts(own, own).values()) == {0.0}
    mild = reliability_shifts(reliability(confidences**0.9, correct), own)
    strong = reliability_shifts(reliability(confidences**0.5, correct), own)
    assert all(0.0 < mild[name] < strong[name] for name in mild)


def test_no_words_give_no_numbers():
    nothing = reliability(np.empty(0), np.empty(0, bool))
    assert nothing.words == 0
    assert np.isnan([nothing.ece, nothing.nce, nothing.brier]).all()


@pytest.mark.parametrize("seed", range(20))
def test_right_words_are_as_many_as_the_fewest_edits_leave(seed):
    """Hits = hypothesis - substitutions - insertions of a Levenshtein alignment; checked by brute recursion."""
    rng = np.random.default_rng(seed)
    a = [str(x) for x in rng.integers(0, 3, rng.integers(0, 7))]
    b = [str(x) for x in rng.integers(0, 3, rng.integers(0, 7))]
    right = correct_words(a, b)
    edits = _edits(tuple(a), tuple(b))
    wrong = len(a) - int(right.sum())
    missed = len(b) - int(right.sum())
    assert max(wrong, missed) <= edits <= wrong + missed
    assert correct_words(a, a).all()


def _edits(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    if not a or not b:
        return len(a) + len(b)
    same = _edits(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, _edits(a[1:], b) + 1, _edits(a, b[1:]) + 1)


# Over a set of clips


def test_signature_over_clips_separates_a_cheat_from_the_reference(nano, clips, honest, spoken):
    own = calibration_signature(nano, clips, honest, spoken)
    assert own.skipped == 0
    assert own.reference.words > 60
    assert max(own.shifts.values()) < 1e-4
    cheated = scenario("quantise", bits=4, group=64).record(nano, clips)
    other = calibration_signature(nano, clips, cheated, spoken)
    assert other.shifts["reliability_brier"] > 10 * own.shifts["reliability_brier"]
    assert other.shifts["reliability_curve"] > 1e-3


def test_signature_serves_frame_synchronous_families(clips, tmp_path):
    """Random words are hardly ever right; that the numbers agree between provider and reference is what counts."""
    model = earmark.load(tiny_models.parakeet(tmp_path, "ctc", seed=1), device="cpu")
    asked = frame_cases.without_language(clips[:4])
    evidence = list(record_many(model, asked, batch_size=2))
    found = calibration_signature(model, asked, evidence, [item.text for item in evidence])
    assert found.provider.accuracy[found.provider.counts > 0] == pytest.approx(1.0)
    assert found.shifts["reliability_brier"] < 1e-5


def test_signature_wants_as_many_of_each(nano, clips, honest):
    with pytest.raises(UsageError, match="24 clips, 24 evidence, 1 transcripts"):
        calibration_signature(nano, clips, honest, ["one"])
