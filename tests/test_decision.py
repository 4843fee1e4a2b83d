"""Decisions hold what they promise: error rates by simulation, states across restarts, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark.decision.betting import Audit, gains, mean_log, place_bets
from earmark.decision.conformal import clips_needed, conformal_p, lower_bound, promised_rate, upper_bound
from earmark.decision.drift import Drift
from earmark.decision.many import e_benjamini_hochberg
from earmark.decision.score import fit_scale
from earmark.decision.simulation import first_alarms as simulated
from earmark.decision.sprt import Sprt
from earmark.errors import UsageError

SIGMA = 0.6


def lognormal(rng: np.random.Generator, clips: int, shift: float = 0.0) -> np.ndarray:
    """Scores as in the design's simulations: lognormal with sigma 0.6."""
    return np.exp(shift + SIGMA * rng.standard_normal(clips))


def first_alarms(
    shift: float, *, runs: int, clips: int, tolerance: float, share: float = 1.0, calibration: int = 1000
) -> np.ndarray:
    """Return after how many clips each simulated audit alarmed (inf: never)."""
    rng = np.random.default_rng(7)
    found = np.full(runs, np.inf)
    for i in range(runs):
        bets = place_bets(lognormal(rng, calibration), tolerance=tolerance)
        cheated = shift * (rng.random(clips) < share)
        path = Audit(bets=bets).update(lognormal(rng, clips) * np.exp(cheated))
        over = np.flatnonzero(path >= np.log(2 / bets.rate))
        found[i] = over[0] + 1 if over.size else np.inf
    return found


class TestConformal:
    """One clip."""

    def test_false_alarms_stay_below_the_rate(self) -> None:
        """Over many calibrations, P(p <= a) <= a, and nearly reaches it."""
        rng = np.random.default_rng(0)
        alarms = np.mean([conformal_p(lognormal(rng, 1), lognormal(rng, 99))[0] <= 0.05 for _ in range(20000)])
        assert 0.045 <= alarms <= 0.0532  # 5 %, plus 2 standard errors

    @given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 10))
    def test_counts_by_hand(self, calibration: list[float], score: float) -> None:
        """The definition, counted one by one, ties included."""
        expected = (1 + sum(c >= score for c in calibration)) / (len(calibration) + 1)
        assert conformal_p([score], calibration)[0] == pytest.approx(expected)

    def test_promises(self) -> None:
        """A rate and the clips it needs are each other's inverse."""
        assert [clips_needed(r) for r in (0.1, 1e-2, 1e-3, 3e-4)] == [9, 99, 999, 3333]
        assert all(promised_rate(np.zeros(clips_needed(r))) <= r for r in (0.07, 1e-2, 3e-4))

    def test_exact_bounds(self) -> None:
        """Published Clopper-Pearson limits: 10 of 100 gives 4.90 % to 17.62 % at 95 %."""
        assert float(lower_bound(10, 100, 0.025)) == pytest.approx(0.0490, abs=5e-5)
        assert float(upper_bound(10, 100, 0.025)) == pytest.approx(0.1762, abs=5e-5)
        assert float(lower_bound(0, 10, 0.05)) == 0.0
        assert float(upper_bound(10, 10, 0.05)) == 1.0

    @pytest.mark.parametrize("calibration", [[], [1.0, float("nan")]])
    def test_refuses(self, calibration: list[float]) -> None:
        """Nothing to compare with, or numbers that are none."""
        with pytest.raises(UsageError, match="calibration scores"):
            conformal_p([1.0], calibration)


class TestScore:
    """One number per clip."""

    def test_scale_of_the_development_split(self) -> None:
        """The median scores 0, the 99 % quantile less than the largest, which scores at most 1, whatever the unit."""
        rng = np.random.default_rng(1)
        x = np.stack([lognormal(rng, 4001), 1e-6 * lognormal(rng, 4001)], axis=1)
        each = fit_scale(["a", "b"], x).channel_scores(x)
        assert np.allclose(np.median(each, axis=0), 0, atol=1e-9)
        q99 = np.quantile(each, 0.99, axis=0)
        assert np.all((q99 > 0.3) & (q99 < 1))
        assert np.all(each.max(axis=0) <= 1 + 1e-9)

    @pytest.mark.parametrize("tail", [1.0, 2.0, 4.0])
    def test_channels_of_any_tail_are_equally_rare_at_one(self, tail: float) -> None:
        """What decides is the largest of many channels: one with heavy tails must not set the threshold of all."""
        rng = np.random.default_rng(8)
        values = np.exp(0.1 * np.abs(rng.standard_normal((40_000, 1))) ** tail)
        scale = fit_scale(["a"], values[:4000])
        beyond = float((scale.scores(values[4000:]) > 0.75).mean())
        assert 1e-5 < beyond < 5e-3

    def test_never_saturates(self) -> None:
        """A channel far outside goes on growing."""
        scale = fit_scale(["a"], lognormal(np.random.default_rng(2), 500)[:, None])
        assert np.all(np.diff(scale.scores(np.logspace(0, 6, 7)[:, None])) > 0.7)

    def test_channel_of_zeros(self) -> None:
        """Margins are 0 on honest clips; a rare tiny one does not drown the other channels."""
        rng = np.random.default_rng(3)
        values = np.stack([lognormal(rng, 2000), np.where(rng.random(2000) < 0.002, 1e-5, 0.0)], axis=1)
        scale = fit_scale(["distance", "margin"], values)
        honest, cheat = scale.scores(values), scale.scores(np.array([[1.0, 0.5]]))
        assert honest.max() <= 1
        assert cheat[0] > 5

    def test_a_margin_of_some_honest_clips_does_not_reach_to_the_moon(self) -> None:
        """Near-ties on one honest clip in ten are no exponential tail: the limit is twice the largest of them."""
        rng = np.random.default_rng(4)
        margins = np.where(rng.random((2000, 1)) < 0.1, 0.4 * rng.random((2000, 1)), 0.0)
        scale = fit_scale(["margin"], margins)
        assert 0.4 < scale.values_at(1.0)[0] <= 2 * margins.max() + 1e-9

    def test_not_applicable(self) -> None:
        """NaN speaks neither for nor against; a clip without any channel has no score."""
        scale = fit_scale(["a", "b", "never"], np.array([[1.0, 2.0, np.nan], [2.0, 3.0, np.nan]]))
        scores = scale.scores(np.array([[np.nan, 9.0, np.nan], [np.nan] * 3]))
        assert np.isfinite(scores[0])
        assert np.isnan(scores[1])

    def test_slack(self) -> None:
        """Ten times what honest machines showed is no difference; beyond it the score grows, and p is the smallest."""
        rng = np.random.default_rng(4)
        values = np.stack([lognormal(rng, 1000), np.zeros(1000)], axis=1)
        scale, most = fit_scale(["distance", "margin"], values, slack=10), values.max()
        honest = scale.scores(10 * values)
        assert not honest.any()
        assert not scale.scores(np.array([[0, 9e-6]])), "a margin of 0 everywhere, and a near-tie elsewhere"
        cheats = scale.scores(np.array([[10.1 * most, 0], [99 * most, 0], [0, 1e-3]]))
        assert 0 < cheats[0] < cheats[1]
        assert conformal_p(cheats, honest).tolist() == [1 / 1001] * 3
        assert conformal_p(honest[:1], honest)[0] == 1
        bets = place_bets(honest)
        assert bets.honest == (0.0,) * 4
        assert bets.undetectable_share() < place_bets(values[:, 0]).undetectable_share()

    def test_slack_never_allows_what_is_too_much(self) -> None:
        """However noisy the clips: 300 times the rounding of a large network is as much as int8 weights do to it."""
        values = np.full((100, 2), 1e-4)
        limits = {"distance": 1e-3, "other": 5.0}
        scale = fit_scale(["distance", "margin"], values, slack=300, limits=limits)
        assert scale.least == pytest.approx((1e-3, 3e-2))
        assert (scale.scores(np.array([[0.0255, 0.0], [9e-4, 0.029]])) > 0).tolist() == [True, False]
        noisier = fit_scale(["distance"], values[:, :1] * 30, slack=300, limits=limits)
        assert noisier.least == pytest.approx((3e-3,)), "what the clips showed is honest, whatever the limit says"

    @given(st.floats(0.0, 9.0), st.sampled_from([1.0, 30.0]))
    def test_values_at_a_score_have_that_score(self, score: float, slack: float) -> None:
        """Of channels with logarithm and without, with an allowance and without."""
        values = np.stack([lognormal(np.random.default_rng(5), 300), np.linspace(-1, 4, 300)], axis=1)
        scale = fit_scale(["distance", "direction"], values, linear=["direction"], slack=slack)
        found = scale.channel_scores(np.array([scale.values_at(score)]))
        assert found[0] == pytest.approx((score, score), abs=1e-6)

    def test_refuses(self) -> None:
        """No clips, and a fingerprint of another version."""
        with pytest.raises(UsageError, match=r"a slack of 0\.5; expected 1 or more"):
            fit_scale(["a"], np.ones((3, 1)), slack=0.5)
        with pytest.raises(UsageError, match="at least one clip"):
            fit_scale(["a"], np.zeros((0, 1)))
        with pytest.raises(UsageError, match="no statistic 'a'"):
            fit_scale(["a"], np.ones((3, 1))).row({"b": 1.0})


class TestAudit:
    """Many clips."""

    def test_honest_providers_are_left_alone(self) -> None:
        """150 honest audits of 1000 clips, looked at after every clip: no alarm, also under benign drift."""
        assert np.isinf(first_alarms(0.0, runs=150, clips=1000, tolerance=1.0)).all()
        assert np.isinf(first_alarms(0.15, runs=80, clips=1000, tolerance=1.5)).all()

    @pytest.mark.parametrize(("shift", "at_most"), [(0.6, 45), (1.2, 10)])
    def test_shifts_are_found(self, shift: float, at_most: int) -> None:
        """Median clips to detection near the design's 34 and 8 (n_cal 1000, tolerance 1)."""
        assert np.median(first_alarms(shift, runs=60, clips=600, tolerance=1.0)) <= at_most

    def test_mixing_is_found(self) -> None:
        """A large deviation on one request of ten, at tolerance 1.5 and n_cal 2000, within 150 clips (median)."""
        alarms = first_alarms(2.5, runs=100, clips=1500, tolerance=1.5, share=0.1, calibration=2000)
        assert np.median(alarms) <= 150

    def test_pass_and_fault(self) -> None:
        """Honest clips lead to PASS; clips withheld by the provider's own fault lead to FAIL."""
        rng = np.random.default_rng(4)
        bets = place_bets(lognormal(rng, 2000))
        honest, sheltering = Audit(bets=bets), Audit(bets=bets)
        honest.update(lognormal(rng, 300))
        sheltering.update([np.inf] * 12)
        assert (honest.outcome, sheltering.outcome) == ("PASS", "FAIL")
        assert Audit(bets=bets).outcome == "INCONCLUSIVE"

    @pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
    def test_broken_rules_exceed_every_threshold(self, share: float) -> None:
        """Honest clips that broke a rule make no threshold that a provider which breaks rules does not exceed."""
        rng = np.random.default_rng(0)
        bets = place_bets(np.r_[rng.standard_normal(1023), [np.inf] * 6])
        assert np.isfinite(bets.thresholds).all()
        assert len(bets.thresholds) == len(bets.rates) == len(bets.honest) == 3, "the strictest would be infinite"
        honest, breaking = Audit(bets=bets), Audit(bets=bets)
        honest.update(rng.standard_normal(3000))
        breaking.update(np.where(rng.random(3000) < share, np.inf, rng.standard_normal(3000)))
        assert (honest.outcome, breaking.outcome) == ("PASS", "FAIL")
        assert breaking.peak_pass < np.log(1 / bets.miss)

    def test_false_pass_rate(self) -> None:
        """A provider that exceeds the strictest threshold at rate m + margin passes in at most b of the audits."""
        rng = np.random.default_rng(5)
        bets = place_bets(lognormal(rng, 2000), margin=0.05, miss=0.05)
        limit, top = bets.rates[-1] + bets.margin, bets.thresholds[-1]
        passed = 0
        for _ in range(400):
            audit = Audit(bets=bets)
            audit.update(np.where(rng.random(800) < limit, top + 1, 0.0))
            passed += audit.peak_pass >= np.log(1 / bets.miss)
        assert passed / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5

    @settings(max_examples=30)
    @given(st.lists(st.floats(0, 20), max_size=40), st.integers(0, 40))
    def test_restart_changes_nothing(self, scores: list[float], cut: int) -> None:
        """One run, and one that was saved as JSON and restored in the middle, end in the same state."""
        bets = place_bets(lognormal(np.random.default_rng(6), 500))
        whole, first = Audit(bets=bets), Audit(bets=bets)
        whole.update(scores)
        first.update(scores[:cut])
        second = Audit.from_dict(json.loads(json.dumps(first.as_dict())))
        second.update(scores[cut:])
        assert second.log_e == pytest.approx(whole.log_e, abs=1e-9)
        assert (second.clips, second.outcome) == (whole.clips, whole.outcome)
        assert second.exceeded.tolist() == whole.exceeded.tolist()

    def test_undetectable_share(self) -> None:
        """At the printed share the expected growth of every bet is not positive; above it, one grows."""
        bets = place_bets(lognormal(np.random.default_rng(8), 3000))
        share = bets.undetectable_share()
        m, h = np.asarray(bets.rates), np.asarray(bets.honest)
        assert np.all(h + share * (1 - h) <= m + 1e-12)
        assert np.any(h + (share + 0.01) * (1 - h) > m)

    def test_refuses(self) -> None:
        """Rates out of range, too few clips, NaN scores, damaged states."""
        with pytest.raises(UsageError, match="a rate of 2; expected one between 0 and 1"):
            place_bets([1.0, 2.0], rate=2.0)
        for tolerance in (0.0, 0.99, float("nan"), 10.5, 240.0, float("inf")):
            with pytest.raises(UsageError, match="expected a factor of 1 to 10"):
                place_bets([1.0, 2.0], tolerance=tolerance)
        with pytest.raises(UsageError, match="2 scores, 1 of them NaN"):
            place_bets([1.0, float("nan")])
        with pytest.raises(UsageError, match="too few"):
            place_bets([1.0, 2.0])
        with pytest.raises(UsageError, match="1000 calibration clips, 300 of which broke a rule, are too few"):
            place_bets([0.0] * 700 + [float("inf")] * 300)
        audit = Audit(bets=place_bets(lognormal(np.random.default_rng(9), 500)))
        endless = audit.as_dict()["bets"] | {"thresholds": [1.0, 2.0, 3.0, float("inf")]}
        with pytest.raises(UsageError, match=r"damaged: .*expected finite ones"):
            Audit.from_dict(audit.as_dict() | {"bets": endless})
        with pytest.raises(UsageError, match="NaN"):
            audit.update([float("nan")])
        for change in (
            {"log_capital": [[0.0]]},
            {"log_capital": [], "exceeded": [], "log_pass": []},
            {"peak": float("nan")},
            {"peak_pass": float("inf")},
            {"clips": -1},
            {"clips": float("inf")},
            {"exceeded": [audit.clips + 1] * len(audit.exceeded)},
        ):
            with pytest.raises(UsageError, match="damaged"):
                Audit.from_dict(audit.as_dict() | change)
        with pytest.raises(UsageError, match="damaged"):
            Audit.from_dict({"clips": 3})


class TestOthers:
    """Drift, many providers, Wald's test."""

    def test_drift_after_a_long_honest_run(self) -> None:
        """The detector finds a change that the capital of a long honest run hides."""
        rng = np.random.default_rng(10)
        bets = place_bets(lognormal(rng, 2000))
        detector, audit = Drift(bets=bets), Audit(bets=bets)
        before, after = lognormal(rng, 1500), lognormal(rng, 20, shift=3.0)
        assert detector.update(before).max() < np.log(1e4)
        audit.update(before)
        assert detector.update(after).max() > np.log(1e6)
        assert audit.update(after).max() < detector.log_r.max()

    @settings(max_examples=30)
    @given(st.lists(st.one_of(st.floats(0, 20), st.just(np.inf)), max_size=40), st.integers(0, 40))
    def test_drift_follows_its_recursion_across_a_restart(self, scores: list[float], cut: int) -> None:
        """Clip by clip as the definition says; a detector restored from strict JSON goes on in the middle."""
        bets = place_bets(lognormal(np.random.default_rng(6), 500))
        first = Drift(bets=bets)
        path = first.update(scores[:cut]).tolist()
        state = json.dumps(first.as_dict(), allow_nan=False)
        second = Drift.from_dict(json.loads(state))
        assert np.array_equal(second.log_r, first.log_r)
        path += second.update(scores[cut:]).tolist()
        log_r, expected = Drift(bets=bets).log_r, []
        for score in scores:
            log_r = np.logaddexp(log_r, 0.0) + gains(np.array([[score]]) > np.array(bets.thresholds), bets)[0]
            expected.append(float(mean_log(log_r.reshape(1, -1))[0]))
        assert path == pytest.approx(expected, abs=1e-9)
        assert np.allclose(second.log_r, log_r, atol=1e-9)

    def test_drift_stays_exact_over_many_clips(self) -> None:
        """At the largest stake 100 000 honest clips move the sums to minus 300 000."""
        bets = place_bets(lognormal(np.random.default_rng(6), 500))
        at_once, in_parts = Drift(bets=bets), Drift(bets=bets)
        at_once.update(np.zeros(100_000))
        for _ in range(1000):
            in_parts.update(np.zeros(100))
        assert np.allclose(at_once.log_r, in_parts.log_r, atol=1e-8)

    @pytest.mark.parametrize(
        "change", [{"log_r": []}, {"log_r": [[0.0]]}, {"log_r": [[None] * 5] * 4}, {"log_r": "x"}, {"bets": {}}]
    )
    def test_damaged_states_of_the_detector_are_refused(self, change: dict[str, object]) -> None:
        state = Drift(bets=place_bets(lognormal(np.random.default_rng(6), 500))).as_dict()
        with pytest.raises(UsageError, match="state of the detector is damaged"):
            Drift.from_dict(state | change)

    def test_e_bh_keeps_the_false_discovery_rate(self) -> None:
        """All providers honest, e-values with mean 1: rejections in at most the stated share of worlds."""
        rng = np.random.default_rng(11)
        shift = np.log(40.0)  # e is 40 with probability 1/40, else 0
        worlds = np.where(rng.random((4000, 5)) < 1 / 40, shift, -np.inf)
        rejected = np.mean([e_benjamini_hochberg(world, 0.1).any() for world in worlds])
        assert rejected <= 0.1

    def test_unclamped_sprt_buys_frauds(self) -> None:
        """500 honest clips pay for tens of frauds unless the ratio is clamped at 0."""
        free, clamped = Sprt(p0=0.01, p1=0.1, clamp=False), Sprt(p0=0.01, p1=0.1)
        for _ in range(500):
            free.update(failed=False)
            clamped.update(failed=False)
        counts = []
        for test in (free, clamped):
            frauds = 0
            while test.update(failed=True) != "reject":
                frauds += 1
            counts.append(frauds)
        assert counts[0] > 20 > counts[1]

    def test_sprt_error_rates(self) -> None:
        """Wald's bounds hold without the clamp."""
        rng = np.random.default_rng(12)
        wrong = {0.05: 0, 0.3: 0}
        for rate in wrong:
            for _ in range(1500):
                test, answer = Sprt(p0=0.05, p1=0.3, alpha=0.01, beta=0.05, clamp=False), "go on"
                while answer == "go on":
                    answer = test.update(failed=bool(rng.random() < rate))
                wrong[rate] += answer == ("reject" if rate == 0.05 else "accept")
        assert wrong[0.05] / 1500 <= 0.015
        assert wrong[0.3] / 1500 <= 0.06

    def test_refuses(self) -> None:
        """Rates that make no test."""
        with pytest.raises(UsageError, match="p0 < p1"):
            Sprt(p0=0.3, p1=0.1)
        with pytest.raises(UsageError, match="NaN"):
            e_benjamini_hochberg([float("nan")], 0.1)
        with pytest.raises(UsageError, match="NaN"):
            Drift(bets=place_bets(lognormal(np.random.default_rng(13), 500))).update([float("nan")])


class TestSimulation:
    """Many audits at once."""

    def test_finds_what_single_audits_find(self) -> None:
        """The same clip for each, with honest and cheating providers among them, and infinite scores."""
        rng = np.random.default_rng(3)
        bets = place_bets(lognormal(rng, 500), rate=0.01)
        scores = np.array([lognormal(rng, 300, shift=i / 40) for i in range(130)])
        scores[5, 10:20] = np.inf
        expected = []
        for row in scores:
            over = np.flatnonzero(Audit(bets=bets).update(row) >= np.log(2 / bets.rate))
            expected.append(over[0] + 1 if over.size else np.inf)
        found = simulated(scores, bets)
        assert found.tolist() == expected
        assert np.isinf(found).any()
        assert np.isfinite(found).any()

    @pytest.mark.parametrize("scores", [[1.0, 2.0], [[1.0, float("nan")]]])
    def test_refuses_other_shapes_and_nan(self, scores: list[float]) -> None:
        """A flat list of scores is no set of audits."""
        with pytest.raises(UsageError, match="expected"):
            simulated(scores, place_bets(np.arange(500.0)))
