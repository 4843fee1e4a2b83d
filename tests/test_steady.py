"""Statistics that are called steady have the same honest size whatever is said; the others grow with doubt."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax

from earmark.calibrate import calibrate, channels_of
from earmark.fingerprint.sequence import position_statistics
from earmark.registry import registry
from earmark.runs import Row, Run

FAMILIES = ["autoregressive", "ctc", "transducer"]


def _said(logits):
    """Return what a model says of its eight best tokens, the best of them chosen."""
    logprobs = log_softmax(logits, axis=1)
    ids = np.argsort(-logprobs, axis=1)[:, :8]
    return SimpleNamespace(
        ids=ids,
        logprobs=np.take_along_axis(logprobs, ids, axis=1),
        chosen=logprobs[:, 0],
        entropy=-(np.exp(logprobs) * logprobs).sum(axis=1),
        all=logprobs,
    )


def _statistics(lead):
    """Return the statistics of two honest machines whose logits differ by noise; the best token leads by so much."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 30))
    logits[:, 0] = 2 + lead
    one, other = (_said(logits + 0.01 * rng.normal(size=logits.shape)) for _ in range(2))
    forced = SimpleNamespace(
        scores=other, at_listed=np.take_along_axis(other.all, one.ids, axis=1), margins=np.zeros(len(logits))
    )
    return position_statistics([(one, forced)], [list(np.repeat(np.arange(2000), 2))], 0.1)


def test_what_is_called_steady_is():
    sure, doubt = _statistics(8.0), _statistics(0.5)
    known = {own.name: own.steady for own in registry("family").get("ctc").statistics}
    for name in ("logprob_l1", "prob_l1", "loglik_distance", "entropy_rmse", "confidence_distance"):
        assert (doubt[name] < 1.5 * sure[name]) == known[name], name


@pytest.mark.parametrize("name", FAMILIES)
def test_without_slack_steady_channels_alone_score(name):
    family = registry("family").get(name)
    every, steady = channels_of(family), channels_of(family, slack=1)
    assert set(steady) < set(every)
    assert "logprob_l1" in steady
    assert {"prob_l1", "entropy_rmse", "confidence_distance"} <= set(every) - set(steady)


def test_without_slack_the_fewest_positions_of_a_calibrated_clip_are_kept():
    facts = {"model": "m", "weights": "", "family": "ctc", "precision": "bf16", "level": "scores", "seconds": 2.0}
    rng = np.random.default_rng(0)
    rows = Run(
        Row(
            clip=f"{i}",
            base=f"{i}",
            scenario="s",
            honest=True,
            outcome="PASS",
            positions=7 + i % 5,
            statistics={"logprob_l1": float(size)},
            **facts,
        )
        for i, size in enumerate(rng.exponential(size=3000))
    )
    assert calibrate(rows, ["logprob_l1"], slack=1.0).header.positions == 7
    assert calibrate(rows, ["logprob_l1"], slack=3.0).header.positions == 0
