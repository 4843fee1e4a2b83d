"""The band: exact where it holds everything, below the exact value elsewhere, and never further than its bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import lattice
from earmark.lattice.band import ctc_band


def item(seed: int, frames: int = 60, tokens: int = 20, sure: float = 0.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (frames, 12))
    labels = rng.integers(1, 12, tokens)
    spoken = np.linspace(1, frames - 2, tokens).astype(int)
    logits[:, 0] += sure
    for u, t in enumerate(spoken):
        logits[t, [0, labels[u]]] += [-sure, sure]
    return logits, labels


def exact(logits, labels):
    return lattice.ctc(logits[None], labels[None], [len(logits)], [len(labels)], 0)


@pytest.mark.parametrize("width", [21, 22, 500])
def test_a_band_that_holds_everything_is_exact(width):
    logits, labels = item(0)
    found, whole = ctc_band(logits, labels, 0, width=width), exact(logits, labels)
    assert found.lost_nats == 0.0
    assert found.log_likelihood == pytest.approx(whole.log_likelihood[0], abs=1e-11)
    assert found.alignment.viterbi_score == pytest.approx(whole.viterbi_score[0], abs=1e-11)
    assert found.alignment.entropy == pytest.approx(whole.alignment_entropy[0], abs=1e-9)
    np.testing.assert_array_equal(found.alignment.path, whole.paths[0])
    np.testing.assert_allclose(found.token_occupancy[:, 1:], whole.token_occupancy[0], atol=1e-12)
    np.testing.assert_allclose(found.blank_occupancy, whole.blank_occupancy[0], atol=1e-12)
    np.testing.assert_allclose(found.row_entropy, whole.row_entropy[0], atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(2, 21), st.sampled_from([0.0, 6.0, 12.0]), st.booleans())
def test_the_exact_value_lies_within_the_bound(seed, width, sure, own_centre):
    logits, labels = item(seed, sure=sure)
    whole = exact(logits, labels)
    centre = None
    if own_centre:
        centre = whole.paths[0][:, 1]
    try:
        found = ctc_band(logits, labels, 0, width=width, centre=centre)
    except lattice.LatticeError:  # no alignment lies in the band
        assert not own_centre or width < 4
        return
    gap = whole.log_likelihood[0] - found.log_likelihood
    assert -1e-9 <= gap <= found.lost_nats + 1e-9
    assert found.alignment.viterbi_score <= found.log_likelihood + 1e-9
    inside = found.token_occupancy.sum(1) + found.blank_occupancy.sum(1)
    np.testing.assert_allclose(inside, 1.0, atol=1e-9)
    assert len(found.alignment.token_frame) == len(labels)


def test_a_wide_band_around_a_sure_transcript_loses_next_to_nothing():
    logits, labels = item(1, frames=400, tokens=120, sure=14.0)
    found, whole = ctc_band(logits, labels, 0, width=40), exact(logits, labels)
    assert found.lost_nats < 1e-6
    assert f"lost_nats<={found.lost_nats:.3g}, width=40" in repr(found)
    np.testing.assert_array_equal(found.alignment.path, whole.paths[0])


def test_faults_are_refused():
    logits, labels = item(0)
    with pytest.raises(lattice.LatticeError, match="width is 1"):
        ctc_band(logits, labels, 0, width=1)
    with pytest.raises(lattice.LatticeError, match=r"centre has shape \(3,\)"):
        ctc_band(logits, labels, 0, width=5, centre=[1, 2, 3])
    with pytest.raises(lattice.LatticeError, match="centre holds nan"):
        ctc_band(logits, labels, 0, width=5, centre=np.full(60, np.nan))
    with pytest.raises(lattice.LatticeError, match="targets is 1-dimensional float64; give integers"):
        ctc_band(logits, labels + 0.5, 0, width=5)
    with pytest.raises(lattice.LatticeError, match="no alignment lies in the band"):
        ctc_band(logits, labels, 0, width=3, centre=np.r_[np.zeros(59), 20])
    with pytest.raises(lattice.LatticeError, match="20 tokens need"):
        ctc_band(logits[:10], labels, 0, width=5)
    logits[7, 3] = np.nan
    with pytest.raises(lattice.LatticeError, match="frame 7 hold NaN"):
        ctc_band(logits, labels, 0, width=5)
