"""Scenarios beyond altered weights, each beside a twin that changes nothing and passes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
from tiny_models import parakeet

import earmark
import earmark.scenarios.forged as forged_module
from earmark import Case
from earmark.errors import UsageError
from earmark.scenarios import scenario
from earmark.scenarios.audio import without_silence
from earmark.scenarios.catalogue import catalogue
from earmark.scenarios.child import JOB, Job, Piece, read_results, run, write_job
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Settings, clip_numbers, run_record, run_score
from earmark.scenarios.forged import forged
from earmark.scenarios.forger import difference, learn
from earmark.scenarios.gptq import compensated_grid
from earmark.scenarios.grids import float8_grid, integer_grid, normal_float_grid, rotated
from earmark.scenarios.honest import honest as honest_provider
from earmark.scenarios.mixing import draws
from earmark.scenarios.naming import parse_scenario
from earmark.scenarios.processes import CAPABILITIES, run_child
from earmark.scenarios.tampered import DAMAGES
from earmark.scenarios.traces import close_numbers, open_numbers
from earmark.scenarios.weights import quantise

FOUR_BITS = quantise(bits=4, group=64)


@pytest.fixture(scope="module")
def ctc():
    """Return parakeet-ctc-nano."""
    return earmark.load("embedded:parakeet-ctc-nano", device="cpu")


@pytest.fixture(scope="module")
def few(clips):
    """Return two short clips to be tested on."""
    return sorted(clips, key=lambda clip: len(clip.audio.samples))[:2]


@pytest.fixture(scope="module")
def known(clips, few):
    """Return short clips that a forger learns on; those that are tested are among them, and must be left out."""
    return [*few, *sorted(clips, key=lambda clip: len(clip.audio.samples))[2:6]]


def _outcomes(model, clips, evidence, receipts=None):
    stored = receipts or [own.receipt for own in evidence]
    cases = [
        Case(evidence=e, audio=c.audio, request=c.request, receipt=r)
        for e, c, r in zip(evidence, clips, stored, strict=True)
    ]
    return [verdict.outcome for verdict in earmark.verify_many(cases, model, profile="provisional")]


def _run(model, clips, made, level="sketch"):
    return _outcomes(model, clips, made.record(model, clips, level=level))


CHEATS = [
    ("quantise", {"bits": 8, "rotation": "hadamard"}),
    ("quantise_activations", {}),
    ("skip_frames", {}),
    ("other_precision", {}),
    ("drop_silence", {}),
    ("stop_early", {}),
    ("laundered", {}),
    ("fabricated", {}),
    ("other_audio", {}),
    ("restamped", {}),
    *(("malformed", {"kind": kind}) for kind in DAMAGES),
]


@pytest.mark.parametrize(("name", "parameters"), CHEATS)
def test_each_cheat_fails_on_every_clip(nano, few, name, parameters):
    assert _run(nano, few, scenario(name, **parameters)) == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("skip_frames", {}), ("other_audio", {}), ("restamped", {})],
)
def test_the_same_cheats_fail_on_ctc(ctc, few, name, parameters):
    assert _run(ctc, few, scenario(name, **parameters)) == ["FAIL", "FAIL"]


def test_sixteen_bits_change_nothing_that_shows(nano, few):
    assert _run(nano, few, quantise(bits=16)) == ["PASS", "PASS"]


def test_copied_shapes_fail(ctc, few, known):
    assert _run(ctc, few, scenario("copied_shapes", clips=known), "scores") == ["FAIL", "FAIL"]


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_a_learned_forger_fails_and_one_with_nothing_to_forge_passes(ctc, few, known, kind):
    made = scenario("forger", kind=kind, clips=known)
    assert _run(ctc, few, made, "scores") == ["FAIL", "FAIL"]
    twin = scenario("forger", kind=kind, clips=known, writer=ctc)
    assert _run(ctc, few, twin, "scores") == ["PASS", "PASS"]


def test_a_forger_comes_nearer_to_the_reference_on_what_it_learned_from(ctc, few):
    inputs, settings, cheap = own_inputs(ctc, 2, clips=few), Settings(), FOUR_BITS.alternative(ctc)
    learned = learn(ctc, cheap, inputs, settings, kind="ridge")
    written = run_record(cheap, inputs, settings)
    true = [open_numbers(o) for o in run_score(ctc, inputs, written, dataclasses.replace(settings, k=257))]
    own = [open_numbers(o) for o in written]
    before, after = (
        np.concatenate([difference(made, real) for made, real in zip(numbers, true, strict=True)])
        for numbers in (own, [learned.forge(numbers) for numbers in own])
    )
    assert (after**2).sum() < 0.6 * (before**2).sum()


def test_a_single_clip_still_gets_other_audio(nano, ctc, few, known):
    """A run that goes on may find one clip left to measure."""
    for model, own in ((nano, None), (ctc, known)):
        made = scenario("other_audio", clips=own)
        for clip in few:
            assert _run(model, [clip], made) == ["FAIL"]
    with pytest.raises(UsageError, match="has no other audio"):
        scenario("other_audio", clips=few).record(nano, few)


def test_other_audio_is_that_of_the_clip_before_or_of_the_clips_given(nano, few, known, monkeypatch):
    heard = []
    monkeypatch.setattr(forged_module, "run_record", lambda _model, inputs, _settings: heard.append(inputs) or [])
    inputs = own_inputs(nano, 2, clips=few)
    for clips in (None, known):
        scenario("other_audio", clips=clips).produce(nano, inputs, Settings())
    for swapped, donors in zip(heard, (few[::-1], [known[5], known[2]]), strict=True):
        for item, tested, donor in zip(swapped, few, donors, strict=True):
            assert np.array_equal(item.samples, np.resize(donor.audio.samples, len(tested.audio.samples)))


def test_a_request_that_already_says_so_is_no_cheat_and_is_refused(nano, few):
    asked = [dataclasses.replace(c, request=msgspec.structs.replace(c.request, language="de")) for c in few]
    cheat = scenario("other_request", language="de")
    assert [cheat.obeys(clip) for clip in (*few, *asked)] == [False, False, True, True]
    assert _run(nano, few, cheat) == ["FAIL", "FAIL"]
    with pytest.raises(UsageError, match="1 of 2 pieces already ask for language-de"):
        cheat.record(nano, [few[0], asked[1]])
    assert not quantise(bits=8).obeys(few[0])


def test_forgers_never_see_what_they_are_tested_on(nano, few):
    inputs = own_inputs(nano, 9, clips=few)
    assert own_inputs(nano, 9, clips=few, apart_from=inputs) == []
    with pytest.raises(UsageError, match="nothing to learn on"):
        scenario("forger", clips=few).record(nano, few)
    with pytest.raises(UsageError, match="seen no honest evidence"):
        scenario("copied_shapes", clips=few).record(nano, few)


def test_fabricated_numbers_without_noise_of_the_reference_itself_pass(nano, few):
    assert _run(nano, few, scenario("fabricated", noise=0.0, writer=nano)) == ["PASS", "PASS"]


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


def test_cached_evidence_of_the_level_scores_fails_by_the_stored_receipt_alone(nano, few):
    receipts = [own.receipt for own in honest_provider().record(nano, few)]
    cached = scenario("restamped").record(nano, few)
    assert _outcomes(nano, few, cached) == ["PASS", "PASS"], "nothing in its numbers depends on the nonce"
    assert _outcomes(nano, few[::-1], cached[::-1], receipts) == ["FAIL", "FAIL"]


def test_lossy_speculation_fails_where_it_writes_otherwise_and_lossless_passes(nano, early, clips):
    some = clips[:4]
    plain = honest_provider().record(nano, some)
    lossy = scenario("speculative", accept=0.01, draft=early).record(nano, some)
    differs = [mine.text != real.text for mine, real in zip(lossy, plain, strict=True)]
    assert any(differs)
    assert [outcome == "FAIL" for outcome in _outcomes(nano, some, lossy)] == differs
    lossless = scenario("speculative", draft=early).record(nano, some)
    assert [own.text for own in lossless] == [own.text for own in plain]
    assert set(_outcomes(nano, some, lossless)) == {"PASS"}


def test_a_mixing_provider_cheats_on_the_requests_that_it_drew(ctc, clips):
    some = clips[:6]
    outcomes = _run(ctc, some, scenario("mixed", cheat=FOUR_BITS, share=0.5))
    drawn = [draws(clip.request.digest(), 0.5, 0) for clip in some]
    assert set(drawn) == {True, False}
    assert outcomes == ["FAIL" if cheated else "PASS" for cheated in drawn]


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


def test_padding_is_honest_and_the_silence_is_thrown_away(ctc, clips):
    evidence = honest_provider(batch_size=2, padding_s=6.0).record(ctc, clips[:3], level="sketch")
    assert len(evidence) == 3
    assert _outcomes(ctc, clips[:3], evidence) == ["PASS"] * 3


def test_compiled_layers_are_honest(ctc, few):
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    assert _run(ctc, few, honest_provider(compiled="aot_eager")) == ["PASS", "PASS"]
    assert counted["unique_graphs"] > before, "nothing was compiled"


def test_what_a_machine_or_model_cannot_do_is_refused_by_name(nano, ctc, few):
    with pytest.raises(UsageError, match="device 'cuda:99' cannot be used"):
        honest_provider(device="cuda:99").record(nano, few)
    with pytest.raises(UsageError, match="compiled takes"):
        honest_provider(compiled="fortran").record(nano, few)
    with pytest.raises(UsageError, match="nothing can be drafted"):
        scenario("speculative").record(ctc, few)
    with pytest.raises(UsageError, match="writes no end token"):
        scenario("stop_early").record(ctc, few)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_is_honest(nano, few):
    assert _run(nano, few, honest_provider(device="cuda")) == ["PASS", "PASS"]


def test_other_engines_are_told_from_the_same_one(nano, few):
    with pytest.raises(UsageError, match="both run in"):
        scenario("other_engine", model=nano).record(nano, few)
    elsewhere = nano.with_module(nano.module)
    elsewhere.info = dataclasses.replace(nano.info, engine="onnxruntime 1.0")
    made = scenario("other_engine", model=elsewhere)
    assert made.name == "honest-engine-onnxruntime"
    assert _run(nano, few, made) == ["PASS", "PASS"]


def _job(model, clips, **changes):
    pieces = tuple(Piece.of(item) for item in own_inputs(model, 9, clips=clips))
    job = Job(
        source="embedded:whisper-nano",
        weights=model.info.weights,
        dtype="float32",
        attention="sdpa",
        k=4,
        level="scores",
        batch_size=2,
        pieces=pieces,
    )
    return msgspec.structs.replace(job, **changes)


def test_a_child_records_what_its_parent_would(tmp_path, nano, few):
    write_job(tmp_path / JOB, _job(nano, few))
    run(tmp_path)
    outputs, capability = read_results(tmp_path)
    assert outputs == run_record(nano, own_inputs(nano, 9, clips=few), Settings(k=4, batch_size=2))
    assert capability in CAPABILITIES.values()


def test_a_child_with_other_weights_records_nothing(tmp_path, nano, few):
    write_job(tmp_path / JOB, _job(nano, few, weights="0" * 64))
    with pytest.raises(UsageError, match="the claim is 000000000000"):
        run(tmp_path)


def test_a_child_that_fails_says_why(nano, few):
    code = "import sys; sys.exit('no such checkpoint')"
    with pytest.MonkeyPatch.context() as patch:
        real = subprocess.run
        patch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", code], **options))
        with pytest.raises(UsageError, match="code 1: no such checkpoint"):
            run_child("nowhere", nano, own_inputs(nano, 1, clips=few), Settings(), {"ATEN_CPU_CAPABILITY": "avx2"})


@pytest.mark.parametrize(("library", "kind"), [("bitsandbytes", "int8"), ("torchao", "int8-dynamic")])
def test_arithmetic_of_other_libraries_fails(ctc, few, library, kind):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install earmark[quant]")
    assert _run(ctc, few, scenario(library, kind=kind), "scores") == ["FAIL", "FAIL"]


@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_a_missing_library_is_named(ctc, few, library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        patch.setitem(sys.modules, f"{library}.quantization", None)
        with pytest.raises(UsageError, match=r"install earmark\[quant\]"):
            scenario(library, kind="int8").record(ctc, few)


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
