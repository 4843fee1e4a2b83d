"""The profiles that ship: of the embedded models as they are, with the rate they promise, in use by default."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
from scipy.stats import binom

import earmark
from earmark.profiles import PROFILE_FILE, load_profile
from earmark.scenarios import scenario

SHIPPED = sorted(path.parent for path in (Path(str(files("earmark.data"))) / "profiles").rglob(PROFILE_FILE))
POLICY = earmark.Policy(accept_compact=True)
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda folder: folder.name)
def profile(request):
    return load_profile(request.param)


@pytest.fixture(scope="module")
def reference(profile):
    return earmark.load(profile.header.model, dtype=DTYPES[profile.header.precision], device="cpu")


@pytest.fixture(scope="module")
def asked(clips):
    """Return two short clips with requests that every family takes."""
    short = sorted(clips, key=lambda clip: len(clip.audio.samples))[:2]
    return [dataclasses.replace(c, request=earmark.request(c.audio, nonce=c.request.nonce)) for c in short]


def test_it_belongs_to_the_model_that_ships(profile, reference):
    """A model that was trained on needs a new profile."""
    profile.check_fits(reference.info)
    assert profile.header.scenarios == (
        "honest-batch-1", "honest-batch-8-attention-eager", "honest-batch-3-threads-1", "honest-batch-16",
    )  # fmt: skip


def test_held_out_clips_keep_the_promise(profile):
    """As many false alarms as a rate of 1e-3 makes likely, and clips enough to say so."""
    header = profile.header
    assert header.rate == 1e-3
    assert header.held_out.clips >= 1000
    assert binom.sf(header.held_out.alarms - 1, header.held_out.clips, header.rate) >= 0.05


def test_it_judges_by_itself(profile, reference, asked):
    """Without naming a profile, honest evidence passes and four-bit weights fail, at every level it covers."""
    cheap = scenario("quantise", bits=4, group=64)
    for level in ("compact",) if profile.header.level == "compact" else ("scores", "sketch"):
        honest = list(earmark.record_many(reference, asked, level=level))
        assert _outcomes(reference, asked, honest) == ["PASS", "PASS"]
        assert _outcomes(reference, asked, cheap.record(reference, asked, level=level)) == ["FAIL", "FAIL"]


def test_an_old_sketch_fails(reference, asked):
    """The hidden states depend on the nonce, and are looked at wherever they are asked for."""
    old = scenario("restamped").record(reference, asked, level="sketch")
    assert _outcomes(reference, asked, old) == ["FAIL", "FAIL"]


def _outcomes(reference, asked, evidence):
    verdicts = [
        earmark.verify(own, clip.request, clip.audio, reference, attribution="never", policy=POLICY)
        for own, clip in zip(evidence, asked, strict=True)
    ]
    for verdict in verdicts:
        assert verdict.profile.startswith(f"{reference.info.name} {reference.info.precision}")
    return [verdict.outcome for verdict in verdicts]
