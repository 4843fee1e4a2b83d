"""Parts of scenarios: grids, numbers opened and closed, names, and the catalogue."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
import torch
from providers import FOUR_BITS
from tiny_models import parakeet

import earmark
from earmark.errors import UsageError
from earmark.scenarios import scenario
from earmark.scenarios.audio import without_silence
from earmark.scenarios.catalogue import catalogue
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Settings, clip_numbers, run_record
from earmark.scenarios.forged import forged
from earmark.scenarios.gptq import compensated_grid
from earmark.scenarios.grids import float8_grid, integer_grid, normal_float_grid, rotated
from earmark.scenarios.honest import honest as honest_provider
from earmark.scenarios.naming import parse_scenario
from earmark.scenarios.traces import close_numbers, open_numbers


def test_opening_and_closing_numbers_changes_no_byte(nano, ctc, few):
    for model in (nano, ctc):
        outputs = run_record(model, own_inputs(model, 2, clips=few), Settings())
        assert [msgspec.msgpack.decode(close_numbers(open_numbers(o), o).trace) for o in outputs] == [
            msgspec.msgpack.decode(o.trace) for o in outputs
        ]
        kept = forged(model, outputs, lambda numbers: numbers)
        for one, other in zip(outputs, kept, strict=True):
            assert np.abs(open_numbers(one).logprobs - open_numbers(other).logprobs).max() < 1e-6


def test_traces_of_another_form_are_refused(nano, few):
    output = run_record(nano, own_inputs(nano, 1, clips=few), Settings())[0]
    for trace in (b"", msgspec.msgpack.encode({"k": 1}), msgspec.msgpack.encode([1])):
        with pytest.raises(UsageError, match="traces with the fields"):
            open_numbers(dataclasses.replace(output, trace=trace))


def test_dropping_silence_leaves_speech_alone():
    tone = np.where(np.arange(16_010) % 2, 8000, -8000).astype(np.int16)
    gap = np.zeros(3200, np.int16)
    assert np.array_equal(without_silence(tone, 0.05), tone)
    assert np.array_equal(without_silence(np.concatenate([tone[:6400], gap, tone[:6400]]), 0.05), tone[:12_800])
    assert len(without_silence(np.concatenate([tone[:320], gap]), 0.05)) == 3520, "too little would be left"


def test_gptq_errs_less_than_rounding_on_its_own_inputs():
    torch.manual_seed(0)
    inputs = torch.randn(400, 24) @ torch.randn(24, 24)
    rows, moment = torch.randn(7, 24), inputs.T @ inputs
    made, plain = (compensated_grid(rows, m, bits=4, group=8) for m in (moment, torch.eye(24)))
    assert torch.allclose(plain, integer_grid(rows, bits=4, group=8), atol=1e-5), "independent inputs: plain rounding"
    errors = [float(((inputs @ (own - rows).T) ** 2).sum()) for own in (made, plain)]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize(
    "grid",
    [
        lambda rows: compensated_grid(rows, rows.T @ rows, bits=4, group=8),
        lambda rows: integer_grid(rows, bits=8),
        lambda rows: integer_grid(rows, bits=4, group=7, symmetric=False, rounding="stochastic"),
        lambda rows: normal_float_grid(rows, group=8),
        float8_grid,
        lambda rows: rotated(rows, "random")[0],
        lambda rows: rotated(rows, "hadamard")[0],
    ],
)
def test_grids_stay_on_the_device_of_the_weights(grid):
    """The meta device refuses tensors of the CPU beside its own, as CUDA does."""
    weights = torch.empty(6, 24, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        weights + torch.eye(6, 24)
    made = grid(weights)
    assert (made.shape, made.device.type) == ((6, 24), "meta")


def test_gptq_puts_every_linear_weight_on_a_grid(tmp_path):
    tiny = earmark.load(parakeet(tmp_path, "ctc"), device="cpu")
    made = scenario("gptq", bits=2, group=None, clips=1).alternative(tiny)
    before = {name: layer.weight for name, layer in tiny.module.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert len(before) > 10
    for name, weight in before.items():
        own = made.module.get_submodule(name).weight.detach()
        assert max(len(row.unique()) for row in weight) > 4
        assert max(len(row.unique()) for row in own) <= 4
        assert torch.isfinite(own).all()


def test_scenarios_can_be_named_inside_others(nano):
    made = parse_scenario("mixed:share=0.25,cheat=(quantise:bits=4,group=64),seed=3", load=lambda _: nano)
    assert made.name == "int4-g64-on-0.25"
    assert parse_scenario("mixed:cheat=laundered", load=lambda _: nano).name == "laundered-on-0.25"


@pytest.mark.parametrize(
    ("word", "hint"), [("quantize:bits=4", "did you mean 'quantise'"), ("nosuch", "earmark scenarios")]
)
def test_a_word_that_is_neither_scenario_nor_checkpoint_is_named(word, hint):
    with pytest.raises(UsageError, match=f"is no scenario .*{hint}.* and no checkpoint"):
        parse_scenario(word, load=earmark.load)


def test_clips_are_counted_by_their_first_segment(nano, few):
    items = own_inputs(nano, 2, clips=few)
    later = dataclasses.replace(items[0], index=1)
    assert clip_numbers([items[0], later, items[1], later, later]) == [0, 0, 1, 1, 1]


def test_the_catalogue_names_every_threat_of_a_provider_once(nano, ctc, early):
    found = {model.info.family: catalogue(model, {}) for model in (nano, ctc)}
    common = {"A1", "A2", "A2b", "A3", "A5", "A7", "A8", "A10", "A11", "A12", "A15", "A16", "A18", "A19", "A20"}
    common |= {"A21", "A23", "honest"}
    assert {entry.threat for entry in found["ctc"]} == common
    assert {entry.threat for entry in found["autoregressive"]} == common | {"A9", "A13", "A14", "A17"}
    compiled = {family: "honest-compiled-aot_eager" in str(entries) for family, entries in found.items()}
    assert compiled == {"ctc": True, "autoregressive": False}
    for entries in found.values():
        names = [entry.scenario.name for entry in entries]
        assert len(set(names)) == len(names)
        assert all(entry.scenario.honest == (entry.threat == "honest") for entry in entries)
    assert [e.scenario.name for e in catalogue(nano, {"early": early}) if e.threat == "A4, A6"] == ["early"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("quantise", {"rotation": "upside-down"}),
        ("gptq", {"bits": 9}),
        ("gptq", {"clips": 25}),
        ("skip_frames", {"every": 1}),
        ("quantise_activations", {"kind": "int2"}),
        ("torchao", {"kind": "int3"}),
        ("bitsandbytes", {"kind": "int3"}),
        ("drop_silence", {"floor": 0.0}),
        ("other_precision", {"dtype": "float64"}),
        ("speculative", {"accept": 1.0}),
        ("fabricated", {"noise": -1.0}),
        ("forger", {"kind": "oracle"}),
        ("malformed", {"kind": "sweet"}),
        ("stop_early", {"share": 1.0}),
        ("mixed", {"cheat": FOUR_BITS, "share": 1.0}),
        ("mixed", {"cheat": honest_provider()}),
        ("instruction_set", {"source": "embedded:whisper-nano", "isa": "mmx"}),
        ("honest", {"padding_s": -1.0}),
    ],
)
def test_impossible_parameters_are_refused(name, parameters):
    with pytest.raises(UsageError):
        scenario(name, **parameters)
