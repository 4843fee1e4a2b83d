"""Ranking clips by uncertainty and by what shows a cheat."""

from __future__ import annotations

import json

import numpy as np
import pytest

import earmark
from earmark import challenges as ch
from earmark.challenges import mining
from earmark.loading import family_of
from earmark.scenarios import scenario


def test_mining_ranks_by_uncertainty_near_ties_and_what_shows_a_cheat(nano, early):
    clips = [*ch.load(category="clean", language="en")][:3] + [*ch.load(category="noisy", language="en")][:2]
    found = list(mining.mine(nano, [mining.Candidate(name=c.id, audio=c.audio(), language="en") for c in clips]))
    by_entropy, by_ties = mining.rank(found), mining.rank(found, border=True)
    assert [m.entropy for m in by_entropy] == sorted((m.entropy for m in found), reverse=True)
    assert [m.near_ties for m in by_ties] == sorted((m.near_ties for m in found), reverse=True)
    made = earmark.request(clips[0].audio(), language="en")
    segment = earmark.record(nano, made, clips[0].audio()).segments[0]
    scores = family_of(nano).read(segment, made, nano, "scores").scores
    assert found[0].entropy == pytest.approx(float(scores.entropy.mean()), rel=1e-3)
    assert found[0].smallest_margin == pytest.approx(np.diff(-scores.logprobs[:, :2]).min(), rel=1e-2)

    candidate = mining.Candidate(name="a", audio=clips[0].audio(), language="en")
    cheats = [mining.parse_cheat("quantise:bits=8"), scenario("other_checkpoint", model=early)]
    (shown,) = mining.mine(nano, [candidate], cheats=cheats)
    assert shown.separation == min(shown.separations.values()) > 1  # ten times the honest distance
    (honest,) = mining.mine(nano, [candidate], cheats=[scenario("other_checkpoint", model=nano)])
    assert abs(honest.separation) < 1  # the reference itself is no cheat


def test_the_mine_command(run, few):
    manifest = few / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    base = ("mine", few, "--model", "embedded:whisper-nano", "--top", 2)
    code, out, _ = run(*base, "--json", "--cheat", "quantise:bits=4,group=64")
    rows = [json.loads(line) for line in out.splitlines()]
    shown = [row["separations"]["int4-g64"] for row in rows]
    assert (code, len(rows)) == (0, 3)
    assert shown == sorted(shown, reverse=True)
    code, out, _ = run(*base, "--border")
    assert (code, out.count("clean-")) == (0, 2)
    for bad in ("nobody", "quantise:bits", "quantise:bits=99", "quantise:beats=3"):
        assert run(*base, "--cheat", bad)[0] == 3
