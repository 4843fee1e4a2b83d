"""Negative controls of the family contracts: each broken family is told by the right one."""

from __future__ import annotations

import pytest
from broken_families import (
    Ascending,
    Blind,
    Bulky,
    Crashing,
    Deaf,
    Empty,
    Forgetful,
    Infinite,
    Lenient,
    Moody,
    Short,
    Shrinking,
    Stale,
    Trusting,
    Unbounded,
    Undemanding,
    Unnamed,
    Untidy,
)
from contract_cases import model_of

from earmark.testing import FAMILY_CONTRACTS, check_family

BROKEN = {
    "describes itself": [(Unnamed, "distinct names"), (Unbounded, r"'similarity'.*names of `statistics`")],
    "round trip": [
        (Ascending, r"FAIL \(trace\.order.*honest evidence of clip 0 at level scores"),
        (Infinite, r"'margin_max': inf"),
        (Empty, "a number behind every PASS"),
    ],
    "repeatable": [(Moody, "other evidence of clip 0 the second time.*remove the chance")],
    "batch invariance": [(Forgetful, "recorded in batches of 4.*order of the inputs")],
    "segments": [(Short, "a clip in two segments")],
    "silence": [(Untidy, r"replay\.failed.*no words.*handle empty transcripts")],
    "bounded traces": [(Bulky, "a trace of 100.* bytes")],
    "strict reading": [
        (Crashing, "from `read` on a damaged trace.*expected TraceError"),
        (Trusting, "read as a trace.*refuse what is cut, padded"),
    ],
    "bound to ids": [(Lenient, r"PASS for .* in clip \d, the trace written anew")],
    "bound to audio": [(Deaf, "different ones; make model and replay depend on the audio")],
    "bound to values": [(Blind, "PASS for field .* filled with")],
    "bound to nonce": [(Stale, "the same trace under another nonce.*choose the probes by the nonce")],
    "least k": [(Undemanding, "PASS for k = 1 under a policy of 5")],
    "grows with noise": [(Shrinking, "rank_distance falls with noise"), (Blind, "clip 0 scored by weights with noise")],
}


@pytest.mark.parametrize(
    ("contract", "family", "message"), [(name, *row) for name, rows in BROKEN.items() for row in rows]
)
def test_broken_families_are_told(contract, family, message):
    with pytest.raises(
        AssertionError, match=rf"(?s)contract '{contract}' of family 'autoregressive' with whisper-nano: .*{message}"
    ):
        check_family(family(), model_of("whisper-nano"), contracts=[contract])


@pytest.mark.parametrize("family", [Crashing, Deaf])
def test_the_whole_suite_finds_a_broken_family(family):
    with pytest.raises(AssertionError, match="contract"):
        check_family(family(), model_of("whisper-nano"))


def test_every_family_contract_has_a_negative_control():
    assert set(FAMILY_CONTRACTS) - set(BROKEN) == {"damaged records"}, "ids and text are bound by the core"
