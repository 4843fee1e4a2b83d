"""The path of least margin: equal to enumeration, and without any margin for what greedy decoding wrote itself."""

from __future__ import annotations

import lattice_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import lattice
from earmark.greedy import greedy_steps

seeds = st.integers(0, 2**32 - 1)
small = settings(max_examples=40, deadline=None, derandomize=True)
TIE = 0.7


def cost(margins):
    """Return how many margins exceed the near-tie, and their sum: what the best path has least of."""
    return int((margins.max(axis=0) > TIE).sum()), float(margins.sum())


@small
@given(seeds)
def test_ctc_equals_enumeration(seed):
    rng = np.random.default_rng(seed)
    frames, labels = int(rng.integers(1, 7)), rng.integers(0, 3, int(rng.integers(0, 4))).tolist()
    logits = rng.normal(0, 1, (frames, 4))
    apart = logits.max(axis=1)[:, None] - logits
    paths = list(reference.ctc_paths(frames, labels, 3))
    if not paths:
        with pytest.raises(lattice.LatticeError, match="need"):
            lattice.ctc_margins(logits, labels, 3, tie=TIE)
        return
    costs = {path: cost(apart[np.arange(frames), path][None]) for path in paths}
    found = lattice.ctc_margins(logits, labels, 3, tie=TIE)
    assert costs[tuple(found.symbols)] == pytest.approx(min(costs.values()), abs=1e-9)
    assert cost(found.margins[None]) == pytest.approx(min(costs.values()), abs=1e-9)
    assert not found.duration_margins.size


@small
@given(seeds, st.sampled_from([None, (0, 1), (0, 1, 2), (1, 2), (0, 2)]), st.booleans())
def test_transducer_equals_enumeration(seed, durations, multi):
    rng = np.random.default_rng(seed)
    big = {3: 2} if multi and durations is None else None
    frames, labels = int(rng.integers(1, 5)), rng.integers(0, 3, int(rng.integers(0, 3))).tolist()
    logits = rng.normal(0, 1, (frames, len(labels) + 1, 5 + len(durations or ())))
    options = {"durations": durations, "big_blanks": big}
    costs = [
        cost(margins_along(logits, path, durations))
        for _, path in reference.transducer_paths(logits, labels, 4, rule="open_end", **options)
    ]
    if not costs:
        with pytest.raises(lattice.LatticeError, match="no path"):
            lattice.transducer_margins(logits[None], labels, 4, tie=TIE, **options)
        return
    found = lattice.transducer_margins(logits[None], labels, 4, tie=TIE, **options)
    steps = found.duration_margins if durations else np.zeros_like(found.margins)
    assert cost(np.stack([found.margins, steps])) == pytest.approx(min(costs), abs=1e-6)
    blanks = {4, *(big or {})}
    assert [symbol for symbol in found.symbols.tolist() if symbol not in blanks] == labels


def margins_along(logits, path, durations):
    """Return margins of symbols and durations, (2, steps), of a path of rows (t, u, symbol, duration)."""
    tokens, named = logits[..., :5], logits[..., 5:]
    rows = [
        (
            tokens[t, u].max() - tokens[t, u, symbol],
            named[t, u].max() - named[t, u, durations.index(length)] if durations else 0.0,
        )
        for t, u, symbol, length in path
    ]
    return np.array(rows).T


@small
@given(seeds, st.sampled_from([None, (0, 1, 2, 3), (1, 2, 4)]), st.sampled_from([0, 1, 2, 5]), st.booleans())
def test_what_greedy_decoding_writes_has_no_margin(seed, durations, max_symbols, multi):
    rng = np.random.default_rng(seed)
    frames, vocab = int(rng.integers(3, 12)), 6
    width = vocab + len(durations or ())
    encoder = torch.from_numpy(rng.normal(0, 1.5, (frames, width)))
    table = torch.from_numpy(rng.normal(0, 1.0, (vocab, width)))
    encoder[:, vocab - 1] += 1.5  # a blank that is likely enough for the decoder to come to its end
    big = {4: 3} if multi and durations is None else {}
    steps = greedy_steps(
        [encoder],
        predictor=lambda tokens, _: (table[tokens], (tokens[:, None],)),
        joint=torch.add,
        blank=vocab - 1,
        durations=durations or (),
        big_blanks=big,
        max_symbols=max_symbols,
    )[0]
    if steps[-1].frame + steps[-1].duration < frames:
        return  # a decoder without end, stopped by its limit of steps
    ids = [step.token for step in steps if step.token != vocab - 1 and step.token not in big]
    states = table[[vocab - 1, *ids]]
    logits = (encoder[:, None] + states)[None]
    options = {"durations": durations, "big_blanks": big or None, "max_symbols": max_symbols}
    own = lattice.transducer_margins(logits, ids, vocab - 1, tie=1e-9, **options)
    assert own.margins.max() == 0
    assert own.duration_margins.max(initial=0.0) == 0
    other = [*ids, 0]
    logits = (encoder[:, None] + table[[vocab - 1, *other]])[None]
    longer = lattice.transducer_margins(logits, other, vocab - 1, tie=1e-9, **options)
    assert max(longer.margins.max(), longer.duration_margins.max(initial=0.0)) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = np.zeros((1, 3, 2, 5))
    logits[0, 1, 1, 0] = value
    with pytest.raises(lattice.LatticeError, match="NaN"):
        lattice.transducer_margins(logits, [1], 4, tie=TIE)
    with pytest.raises(lattice.LatticeError, match="NaN"):
        lattice.ctc_margins(logits[0, :, 1], [1], 4, tie=TIE)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(lattice.LatticeError, match="2 rows for its tokens"):
        lattice.transducer_margins(np.zeros((1, 3, 3, 5)), [1], 4, tie=TIE)
