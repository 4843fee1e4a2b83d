"""From honest runs to a profile: rates that hold, splits without leaks, refusals, restarts."""

from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest
from made_profiles import CHANNELS, FEW, honest_run, row

from earmark.calibrate import calibrate, clips_in_all
from earmark.decision.conformal import clips_needed
from earmark.decision.simulation import first_alarms
from earmark.errors import RecordError, UsageError
from earmark.profiles import PROFILE_FILE, load_profile
from earmark.runs import Run
from earmark.splits import counted, split_bases, turns


@pytest.fixture(scope="module")
def profile():
    return calibrate(honest_run(3500), CHANNELS)


def test_rate_holds_on_fresh_clips(profile):
    """The promised rate, on 20 000 honest clips that the profile never saw."""
    fresh = honest_run(20_000, seed=1).where(lambda r: r.scenario == "a")
    scores = profile.scale.scores(fresh.matrix(CHANNELS))
    from earmark.decision.conformal import conformal_p

    alarms = float((conformal_p(scores, profile.scores) <= profile.header.rate).mean())
    assert profile.header.rate == 1e-3
    assert alarms <= 2e-3  # a calibration of 1500 clips scatters about the rate itself; the mean over many holds it


def test_a_channel_that_never_applies_takes_no_part():
    rows = [dataclasses.replace(each, statistics={**each.statistics, "margin": math.nan}) for each in honest_run(700)]
    profile = calibrate(Run(rows), CHANNELS, rate=1e-2)
    assert profile.header.channels == ("distance",)
    assert profile.judge({"distance": 1.0, "margin": 99.0}).p_value > 0.05, "nothing is known of its honest values"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"least": (0.1,)}, "one finite number per channel"),
        ({"least": (math.inf, 0.0)}, "one finite number per channel"),
        ({"least": (-0.1, 0.0)}, "least values of 0 or more"),
    ],
)
def test_an_allowance_that_makes_no_sense_is_refused(profile, changes, message):
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(profile.header, **changes).__post_init__()


def test_cheats_stand_out_in_their_channel(profile):
    honest = profile.judge({"distance": 1.0, "margin": 0.0})
    far, margin = profile.judge({"distance": 8.0, "margin": 0.0}), profile.judge({"distance": 1.0, "margin": 0.4})
    assert honest.p_value > 0.05
    assert far.p_value == margin.p_value == 1 / 1501
    assert (far.leading, margin.leading) == CHANNELS
    nothing = profile.judge({"distance": math.nan, "margin": math.nan})
    assert math.isnan(nothing.p_value)


def test_held_out_clips_are_counted(profile):
    assert profile.header.held_out.clips == 1500
    assert profile.header.held_out.alarms <= 6
    assert profile.header.held_out.upper() < 0.01
    assert profile.header.scenarios == ("a", "b")


def test_held_out_clips_that_were_measured_once_all_count_in_any_order():
    """As `earmark calibrate` measures them, one held-out clip under one scenario; and the rows lie in another order."""
    run = honest_run(700)
    held_out = split_bases([each.base for each in run]).held_out
    turn = turns(held_out, run.scenarios())
    once = [each for each in run if turn.get(each.base, each.scenario) == each.scenario]
    there, back = (calibrate(Run(rows), CHANNELS).header.held_out for rows in (once, once[::-1]))
    assert there == back
    assert there.clips == len(held_out)


def test_without_slack_the_rate_is_promised_for_the_lengths_that_were_calibrated():
    run = [dataclasses.replace(each, seconds=1.0 + int(each.base[4:]) / 100) for each in honest_run(700)]
    own, allowing = calibrate(Run(run), CHANNELS).header, calibrate(Run(run), CHANNELS, slack=3.0).header
    held_out = split_bases([each.base for each in run]).held_out
    known = [each.seconds for each in run if each.base not in held_out]
    assert own.seconds == (min(known), max(known))
    assert allowing.seconds is None, "a slack is there for what was not calibrated"
    assert not own.promises(0.5)
    assert own.promises(3.0)
    assert allowing.promises(0.5)


def test_splits_never_share_a_base_clip():
    split = split_bases([f"c{i}" for i in range(1000)])
    parts = (split.development, split.conformal, split.held_out)
    assert sum(map(len, parts)) == len(frozenset.union(*parts)) == 1000
    assert split == split_bases([f"c{i}" for i in reversed(range(1000))] * 2), "order and repeats change nothing"
    assert split != split_bases([f"c{i}" for i in range(1000)], seed="other")


def test_a_clip_that_breaks_a_rule_counts_as_an_alarm():
    run = honest_run(700)
    split = split_bases([r.base for r in run])
    broken = sorted(split.held_out)[:3]
    rows = [dataclasses.replace(r, outcome="FAIL") if r.base in broken else r for r in run]
    assert calibrate(Run(rows), CHANNELS).header.held_out.alarms >= 3


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        (honest_run(100), {}, "14 development clips; 20 .* give 137 decided clips in all"),
        (honest_run(700), {"rate": 1e-3}, "needs 999 calibration clips; there are 300"),
        (honest_run(700), {"rate": 1.0}, "rate 1; expected a number between 0 and 1"),
        (honest_run(700), {"tolerance": 11.0}, "a tolerance of 11; expected a factor of 1 to 10"),
        (honest_run(0), {}, "no honest rows"),
        (Run([*honest_run(300), row("x", "a", (1.0, 0.0), precision="bf16")]), {}, "mixes"),
    ],
)
def test_refused_with_the_number_that_is_needed(run, options, message):
    with pytest.raises(UsageError, match=message):
        calibrate(run, CHANNELS, **options)


@pytest.mark.parametrize("clips", [152, 153, 155, 300, 700])
def test_the_rate_that_is_advised_is_granted(clips):
    run = honest_run(clips)
    with pytest.raises(UsageError, match="or --rate") as refused:
        calibrate(run, CHANNELS, rate=1e-3)
    assert calibrate(run, CHANNELS, rate=float(str(refused.value).split()[-1])).header.rate < 0.02


@pytest.mark.parametrize(("rate", "channels"), [(None, 0), (None, 31), (0.01, 0), (0.0123, 0), (1e-3, 0)])
def test_as_many_clips_as_are_asked_for_suffice_and_no_fewer(rate, channels):
    needed = clips_in_all(rate, channels)
    for clips, enough in ((needed, True), (needed - 1, False)):
        split = split_bases([f"c{i}" for i in range(clips)])
        promised = rate is None or len(split.conformal) >= clips_needed(rate)
        assert (len(split.development) >= max(20, channels) and promised) == enough


def test_fewer_clips_promise_less():
    small = calibrate(honest_run(300), CHANNELS, shares=FEW)
    assert small.header.rate == pytest.approx(1 / 121)


def _everywhere(one):
    return [dataclasses.replace(one, clip=f"clip{i}", base=f"clip{i}") for i in range(300)]


def test_the_power_of_budgets_follows_from_the_cheats_of_the_run(tmp_path):
    """One cheat is far away on two clips of three, honest on the third; what bounds said of it counts for nothing."""
    honest = honest_run(300)
    cheats = [
        row(
            f"clip{i}",
            "two-thirds",
            (8.0 if i % 3 else 1.0, 0.0),
            honest=False,
            outcome="FAIL",
            findings=("statistics.logprob_l1",),
        )
        for i in range(300)
    ]
    broken = dataclasses.replace(cheats[0], scenario="broken", findings=("text.mismatch",))
    plain, made = (
        calibrate(run, CHANNELS[:1], shares=FEW) for run in (honest, Run([*honest, *cheats, *_everywhere(broken)]))
    )
    assert {own.provider for own in plain.header.power} == {"any"}
    assert np.array_equal(plain.scores, made.scores), "cheats calibrate nothing"
    tested = [r for r in cheats if r.base not in split_bases([r.base for r in honest], FEW).development]
    share = sum(r.statistics["distance"] > 1 for r in tested) / len(tested)
    found = {own.provider: own.found for own in made.header.power}
    assert found == {"any": 1.0, "two-thirds": pytest.approx(share), "broken": 1.0}
    made.save(tmp_path)
    assert load_profile(tmp_path).header.power == made.header.power
    other = dataclasses.replace(cheats[0], precision="bf16")
    with pytest.raises(UsageError, match="mixes"):
        calibrate(Run([*honest, other]), CHANNELS[:1], shares=FEW)


def test_honest_clips_that_broke_a_rule_cost_the_profile_its_rate(tmp_path):
    """Else no score could ever reach the promised rate, and the profile would accuse nobody."""
    rows = [*honest_run(2400)]
    split = split_bases([r.base for r in rows])
    broken = min(split.conformal)
    rows = [dataclasses.replace(r, outcome="FAIL", findings=("margins",)) if r.base == broken else r for r in rows]
    made = calibrate(Run(rows), CHANNELS)
    assert made.header.rate == pytest.approx(2 / (len(made.scores) + 1))
    assert made.judge({"distance": 1e6, "margin": 0.0}).p_value <= made.header.rate
    with pytest.raises(UsageError, match="of which 1 broke a rule"):
        calibrate(Run(rows), CHANNELS, rate=1e-3)
    made.save(tmp_path)
    assert load_profile(tmp_path).header == made.header
    header = json.loads((tmp_path / PROFILE_FILE).read_text())
    (tmp_path / PROFILE_FILE).write_text(json.dumps(header | {"rate": 1e-3}))
    with pytest.raises(RecordError, match="1 of which broke a rule"):
        load_profile(tmp_path)


FAINT = {"outcome": "INCONCLUSIVE", "findings": ("audio.faint",)}


def faint_run(clips: int, share: int) -> Run:
    """One row of each clip; of a hundred clips, `share` have nothing but faint segments."""
    values = honest_run(clips).where(lambda r: r.scenario == "a")
    return Run(dataclasses.replace(r, statistics={}, **FAINT) if i % 100 < share else r for i, r in enumerate(values))


def test_undecided_clips_count_nowhere():
    """No audit counts them, so they must not make what honest clips exceed look rarer than it is."""
    run = faint_run(7000, 30)
    made, decided = calibrate(run, CHANNELS), [r for r in run if r.statistics]
    split = split_bases([r.base for r in run])
    parts = [sum(r.base in part for r in decided) for part in (split.development, split.conformal, split.held_out)]
    assert [made.header.development, len(made.scores), made.header.held_out.clips] == parts
    assert np.isfinite(made.scores).all()
    assert (made.header.provenance["clips"], made.header.provenance["undecided"]) == ("7000", "2100")
    fresh = made.scale.scores(honest_run(20_000, seed=1).where(lambda r: r.scenario == "a").matrix(CHANNELS))
    assert np.isinf(first_alarms(fresh.reshape(20, 1000), made.bets(tolerance=1.0))).all()
    from earmark.decision.conformal import conformal_p

    assert (conformal_p(fresh, made.scores) <= made.header.rate).mean() <= 2e-3


def test_rates_are_promised_by_decided_clips_alone():
    with pytest.raises(UsageError, match=r"needs 999 calibration clips; there are \d+, which allow"):
        calibrate(faint_run(2400, 30), CHANNELS, rate=1e-3)
    with pytest.raises(UsageError, match=r"19 .*, 50 of 200 clips being undecided; 20 .* give 137 decided"):
        calibrate(faint_run(200, 25), CHANNELS)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        (FAINT, True),
        (FAINT | {"statistics": {}}, False),
        ({"outcome": "INCONCLUSIVE", "findings": ("positions.few",)}, False),
        ({"outcome": "INCONCLUSIVE", "findings": ("audio.faint", "replay.failed")}, False),
        ({"outcome": "INCONCLUSIVE", "findings": ("statistics.length",)}, True),
        ({"outcome": "FAIL", "findings": ("statistics.profile", "positions.few")}, False),
        ({"statistics": {"distance": math.nan, "margin": math.nan}}, False),
    ],
)
def test_a_clip_counts_where_an_audit_would_count_it(changes, counts):
    """A clip of which some segments are faint counts by the others; what another profile left open is judged anew."""
    assert bool(counted([row("a", "b", (1.0, 0.0), **changes)])) == counts


def test_what_stays_open_by_the_provider_counts_as_a_broken_rule():
    cut = row("a", "b", (1.0, 0.0), outcome="INCONCLUSIVE", findings=("trace.censored", "audio.faint"))
    assert [own.outcome for own in counted([cut])] == ["FAIL"]


def test_a_clip_without_the_direction_of_a_recipe_stays_open():
    values = {"distance": 1.0, "along_int8": 0.1}
    rows = [row("a", "b", (0.0, 0.0), statistics=values | {"along_int8": own}) for own in (0.1, math.nan)]
    assert len(counted(rows, ["along_int8"])) == 1


def test_what_other_bounds_said_of_honest_statistics_is_no_broken_rule():
    """A run that was judged by provisional bounds calibrates as one that was judged by the rules alone."""
    rows = [*honest_run(2400)]
    judged = [dataclasses.replace(r, outcome="FAIL", findings=("statistics.distance",)) for r in rows]
    assert calibrate(Run(judged), CHANNELS).scores.tolist() == calibrate(Run(rows), CHANNELS).scores.tolist()
