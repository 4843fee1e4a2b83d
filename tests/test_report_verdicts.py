"""Reports: the banner and the audits say what was found, and name what stayed open."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from made_reports import Page, odd_runs
from made_runs import made_run

from earmark.audit_log import Entry
from earmark.report import Source, build, render
from earmark.report.contents import AuditPath
from earmark.report.plots import draw_audits
from earmark.runs import Run


def test_audits_of_a_run_find_the_cheat_and_no_honest_provider(full):
    paths = {own.name: own for own in full.parts[0].audits}
    assert paths["int8"].decided is not None
    assert paths["honest-batch-1"].decided is None
    assert len(paths["honest-batch-1"].log_e) == 15  # held out: neither scale nor bets saw them


def _entries(decisions):
    return [
        Entry(clip=f"c{i}", outcome="PASS", mode="replay", score=0.1, p_value=0.5, findings=(), log_e=0.01 * i,
              decision=decision)
        for i, decision in enumerate(decisions)
    ]  # fmt: skip


def test_a_long_log_is_thinned_to_be_drawn_and_counted_whole():
    made = build([], audits=[("long.jsonl", _entries(["INCONCLUSIVE"] * 700 + ["FAIL"] * 300))])
    (path,) = made.audits
    assert made.banner.reasons == ("long.jsonl: FAIL behind 1000 clips, decided at clip 701",)
    assert (path.clips, path.final_log_e, path.places[0], path.places[-1]) == (1000, 9.99, 1, 1000)
    assert 701 in path.places
    assert len(path.places) == len(path.log_e) <= 502
    steps = np.diff(path.places)
    assert steps.max() <= 3
    text = render(made, ".md").decode()
    assert "| long.jsonl | FAIL | 1000 | 701 | 10 |" in text


def test_an_empty_log_says_nothing():
    made = build([], audits=[("none.jsonl", [])])
    assert (made.audits[0].clips, made.audits[0].places, made.banner.tone) == (0, (), "open")
    assert "nan" not in Page(render(made, ".html").decode()).text.split()
    assert "| none.jsonl | INCONCLUSIVE | 0 | - | - |" in render(made, ".md").decode()


def test_audits_of_a_run_play_every_clip():
    paths = {own.name: own for own in build([Source(name="x", run=made_run(700))]).parts[0].audits}
    assert paths["int8"].clips > 500
    assert len(paths["int8"].places) <= 502


def test_the_honest_provider_that_comes_highest_is_drawn():
    paths = [
        AuditPath(name=name, honest=True, clips=2, final_log_e=0.0, places=(1, 2), log_e=(0.0, top), fails_at=None,
                  decided=None, decision="INCONCLUSIVE")
        for name, top in (("first", 0.1), ("highest", 5.0), ("last", 0.2))
    ]  # fmt: skip
    drawing = draw_audits(paths, "m")
    assert "highest ends INCONCLUSIVE" in drawing.alt
    assert "first" not in drawing.alt
    assert "Of 3 honest providers, highest comes highest" in drawing.caption


def test_the_page_has_the_audits_of_runs_as_numbers(full, page):
    int8 = next(own for own in full.parts[0].audits if own.name == "int8")
    table = page.text[page.text.index("Evidence over an audit") :].partition("Entropy along a clip")[0]
    assert re.search(rf"int8\s*{int8.decision}\s*{int8.clips}\s*{int8.decided}", table)


def test_nothing_measured_is_said():
    assert build([]).banner.headline == "Nothing was measured."
    assert build([Source(name="x", run=odd_runs()["no statistics"])]).banner.headline == "Nothing was judged."


def test_all_found_is_good_and_an_accused_honest_clip_is_not():
    good = made_run(20).where(lambda row: row.scenario != "mild")
    assert build([Source(name="x", run=good)]).banner.tone == "good"
    accused = Run(dataclasses.replace(r, outcome="FAIL") if r.honest and r.clip == "clip3" else r for r in good)
    banner = build([Source(name="x", run=accused)]).banner
    assert (banner.tone, "1 of 20 honest clips accused" in banner.headline) == ("bad", True)


def _undecided(run: Run, scenario: str, clips: int) -> Run:
    """The run with the first clips of one provider left undecided."""
    names = {f"clip{i}" for i in range(clips)}
    return Run(
        dataclasses.replace(r, outcome="INCONCLUSIVE") if r.scenario == scenario and r.clip in names else r for r in run
    )


@pytest.mark.parametrize(
    ("scenario", "clips", "headline", "reason"),
    [
        ("int8", 19, "0 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 19 verdicts undecided.",
         "int8 of m (fp32, scores): found on 1 of 20 clips, 19 undecided"),
        ("int8", 20, "0 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 20 verdicts undecided.",
         "int8 of m (fp32, scores): not found on any of 20 clips, 20 undecided"),
        ("honest-batch-1", 20,
         "1 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 20 verdicts undecided.",
         "honest-batch-1 of m (fp32, scores): not accused on any of 20 clips, 20 undecided"),
    ],
)  # fmt: skip
def test_undecided_clips_are_named_and_never_good(scenario, clips, headline, reason):
    good = made_run(20).where(lambda row: row.scenario != "mild")
    banner = build([Source(name="x", run=_undecided(good, scenario, clips))]).banner
    assert (banner.tone, banner.headline, banner.reasons) == ("open", headline, (reason,))


def test_without_a_cheat_the_banner_says_who_passed():
    """As in `earmark compare --same` and of bundles: the provider elsewhere must pass."""
    honest = made_run(20).where(lambda row: row.honest)
    same = Run(
        [*honest, *(dataclasses.replace(r, scenario="b-onnx") for r in honest if r.scenario == "honest-batch-1")]
    )
    banner = build([Source(name="x", run=same)]).banner
    assert (banner.tone, banner.headline, banner.reasons) == ("good", "b-onnx passed on 20 of 20 clips.", ())
    left = build([Source(name="x", run=_undecided(same, "b-onnx", 3))]).banner
    assert (left.tone, left.headline) == ("open", "b-onnx passed on 17 of 20 clips; 3 verdicts undecided.")
    failing = Run(dataclasses.replace(r, outcome="FAIL") if r.scenario == "b-onnx" else r for r in same)
    failed = build([Source(name="x", run=failing)]).banner
    assert (failed.tone, failed.headline) == ("bad", "b-onnx passed on 0 of 20 clips.")
    assert failed.reasons == ("b-onnx of m (fp32, scores): accused on 20 of 20 clips",)
    own = build([Source(name="x", run=honest)]).banner
    assert (own.tone, own.headline) == ("good", "2 of 2 honest providers passed on every clip.")
