"""Canary in `.nemo` archives that NeMo itself made, opened with and without NeMo."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nemo_archives
import nemo_canary_archives as canary
import numpy as np
import pytest
import torch
from audio_llm_cases import ask, check_verdicts
from nemo_canary_archives import OPTIONS, REQUESTS

import earmark
from earmark import Clip, record_many
from earmark.errors import UsageError
from earmark.models.nemo_canary import NemoCanaryLoader
from earmark.records.request import Decoding
from earmark.scenarios import scenario

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nemo") is None, reason='NeMo is not installed: pip install "earmark[nemo]"'
)


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    return ask(clips, REQUESTS)


@pytest.fixture
def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=n) * 3000).astype(np.int16) for n in (48_000, 31_234)]


@pytest.fixture(scope="module")
def made_by_nemo(tmp_path_factory) -> dict[str, Path]:
    import nemo_canary_checkpoints

    return nemo_canary_checkpoints.write_all(tmp_path_factory.mktemp("made_by_nemo"))


@pytest.fixture(scope="module")
def by_nemo(made_by_nemo):
    return {kind: NemoCanaryLoader().load(made_by_nemo[kind], **OPTIONS, engine="nemo") for kind in canary.KINDS}


@pytest.mark.parametrize("kind", canary.KINDS)
def test_both_engines_give_the_same_log_probabilities(made_by_nemo, by_nemo, pieces, kind, record_property):
    """6.2e-6 was the largest difference measured (docs/how-to/use-nemo-and-onnx.md)."""
    one, two = NemoCanaryLoader().load(made_by_nemo[kind], **OPTIONS), by_nemo[kind]
    ids = torch.tensor([[*one.text.prompt_ids("en", "en"), *range(10, 40)][: canary.POSITIONS]] * 2)
    with torch.inference_mode():
        first, second = one.encode(pieces), two.encode(pieces)
        assert first.mask.tolist() == second.mask.bool().tolist()
        assert [two.encoder_positions(len(piece)) for piece in pieces] == second.mask.sum(dim=1).tolist()
        a, b = (model.project(model.forced_states(seen, ids)) for model, seen in ((one, first), (two, second)))
    largest = float((a.log_softmax(-1) - b.log_softmax(-1)).abs().max())
    record_property("largest_logprob_difference", largest)
    assert largest < 3e-5


@pytest.mark.parametrize("kind", canary.KINDS)
@pytest.mark.parametrize(("source", "target"), [("en", "en"), ("de", "de"), ("fr", "en")])
def test_prompts_are_those_of_nemos_own_formatter(by_nemo, clips, kind, source, target):
    import lhotse
    from nemo.collections.common.data.prompt_fn import apply_prompt_format_fn

    model = by_nemo[kind]
    task = "transcribe" if source == target else "translate"
    request = earmark.request(clips[0].audio, language=source, task=task)
    wanted = {"source_lang": source, "target_lang": target, "task": "asr" if source == target else "ast", "pnc": "yes"}
    spoken = lhotse.SupervisionSegment(id="1", recording_id="1", start=0, duration=1, text="", language="en")
    cut = lhotse.MonoCut(id="1", start=0, duration=1, channel=0, supervisions=[spoken], custom=wanted)
    theirs = apply_prompt_format_fn(cut, model.module.prompt)["context_ids"]
    assert list(model.prompt_ids(request, source)) == theirs.tolist()


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
@pytest.mark.parametrize("kind", canary.KINDS)
def test_recording_equals_nemos_own_decoding(made_by_nemo, asked, kind, strategy):
    """NeMo runs to the end of its table of positions, recording to what the duration allows, if that is less."""
    from omegaconf import OmegaConf

    model = NemoCanaryLoader().load(made_by_nemo[kind], **OPTIONS, engine="nemo")
    options = {"max_generation_delta": -1} | ({"beam_size": 1} if strategy == "beam" else {})
    model.module.change_decoding_strategy(OmegaConf.create({"strategy": strategy, strategy: options}))
    recorded = list(record_many(model, asked, batch_size=3, level="sketch"))
    _compare_with_nemo(model, asked, recorded)
    _compare_with_nemo(model, asked, canary.ending(model, asked))


def _compare_with_nemo(model, asked, evidence) -> None:
    for clip, item in zip(asked, evidence, strict=True):
        ids, theirs = list(item.segments[0].ids), _own_ids(model, clip)
        assert theirs == ids[:-1] if ids[-1] == model.end_id else theirs[: len(ids)] == ids


@pytest.mark.parametrize("kind", canary.KINDS)
def test_recording_equals_nemos_transcription_of_a_file(made_by_nemo, asked, tmp_path, kind):
    """From the file to the tokens by NeMo alone: its prompt, features and search; only its dither is turned off."""
    import soundfile
    from omegaconf import OmegaConf

    model = NemoCanaryLoader().load(made_by_nemo[kind], **OPTIONS, engine="nemo")
    greedy = {"strategy": "greedy", "greedy": {"max_generation_delta": -1}}
    model.module.change_decoding_strategy(OmegaConf.create(greedy))
    model.module.preprocessor.featurizer.dither, path = 0.0, tmp_path / "clip.wav"
    for clip in (asked[0], asked[2]):
        soundfile.write(path, clip.audio.samples, 16_000, subtype="PCM_16")
        source, translated = clip.request.language, clip.request.task == "translate"
        task = {"taskname": "ast" if translated else "asr", "source_lang": source, "pnc": "yes"}
        (theirs,) = model.module.transcribe(
            [str(path)], batch_size=1, return_hypotheses=True, num_workers=0, verbose=False,
            target_lang="en" if translated else source, **task,
        )  # fmt: skip
        model.module.eval()
        ids = list(earmark.record(model, clip.request, clip.audio).segments[0].ids)
        assert torch.as_tensor(theirs.y_sequence).tolist()[: len(ids)] == ids


def _own_ids(model, clip) -> list[int]:
    """Return what NeMo decodes from the waveform."""
    wave = torch.from_numpy(clip.audio.samples.astype(np.float32) / 32768)[None]
    prompt = torch.tensor([model.prompt_ids(clip.request, clip.request.language)])
    featurizer = model.module.preprocessor.featurizer
    featurizer.dither, featurizer.pad_to = 0.0, 0
    with torch.inference_mode():
        model.module.eval()
        _, _, states, mask = model.module(input_signal=wave, input_signal_length=torch.tensor([wave.shape[1]]))
        (best,) = model.module.decoding.decode_predictions_tensor(
            encoder_hidden_states=states, encoder_input_mask=mask, decoder_input_ids=prompt, return_hypotheses=True
        )
    model.module.eval()
    return torch.as_tensor(best.y_sequence).tolist()


@pytest.mark.parametrize("kind", canary.KINDS)
def test_forced_scores_equal_nemos_step_by_step_decoding_with_cache(by_nemo, asked, kind):
    from nemo.collections.asr.modules.transformer.transformer_generators import GreedySequenceGenerator

    model, clip = by_nemo[kind], asked[0]
    family, decoder = earmark.loading.family_of(model), model.module.transf_decoder
    search = GreedySequenceGenerator(decoder.embedding, decoder.decoder, model.module.log_softmax, pad=canary.PAD)
    segment = earmark.record(model, clip.request, clip.audio, level="sketch").segments[0]
    trace = family.read(segment, clip.request, model, "sketch")
    items = earmark.recording.segment_inputs(clip, model)
    forced = family.replay(model, items, [trace], batch_size=1, advance=lambda _: None)[0].scores
    prompt = model.prompt_ids(clip.request, clip.request.language)
    with torch.inference_mode():
        seen = model.encode([item.samples for item in items])
        cache, fed, at = None, torch.tensor([prompt]), 0
        for position, token in enumerate(segment.ids):
            logits, cache, _ = search._one_step_forward(fed, seen.states, seen.mask, cache, at)
            logprob = float(logits[0, -1].log_softmax(-1)[token])
            assert logprob == pytest.approx(forced.chosen[position], abs=1e-4)
            assert logprob == pytest.approx(trace.scores.chosen[position], abs=1e-4)
            fed, at = torch.tensor([[token]]), len(prompt) + position


@pytest.mark.parametrize("kind", canary.KINDS)
def test_evidence_passes_within_and_across_engines_and_forgeries_fail(made_by_nemo, by_nemo, asked, kind):
    provider, reference = by_nemo[kind], NemoCanaryLoader().load(made_by_nemo[kind], **OPTIONS)
    by_provider, by_reference = (
        list(record_many(model, asked, batch_size=3, level="sketch")) for model in (provider, reference)
    )
    check_verdicts(provider, asked, by_provider)
    for judge, evidence in ((reference, by_provider), (provider, by_reference)):
        for clip, item in zip(asked, evidence, strict=True):
            verdict = earmark.verify(item, clip.request, clip.audio, judge, profile="provisional")
            assert (verdict.outcome, [finding.code for finding in verdict.findings]) == ("PASS", ["engine.other"])
            assert verdict.fingerprint["logprob_l1"] < 1e-5
    assert [item.segments[0].ids for item in by_reference] == [item.segments[0].ids for item in by_provider]
    sibling = NemoCanaryLoader().load(made_by_nemo[f"{kind}-sibling"], **OPTIONS, engine="nemo")
    (cheat,) = scenario("other_checkpoint", model=sibling).record(provider, asked[:1], level="sketch")
    clip = asked[0]
    assert earmark.verify(cheat, clip.request, clip.audio, provider, profile="provisional").outcome == "FAIL"


def test_sampling_is_verified_and_beams_are_refused_by_name(by_nemo, asked):
    model, audio = by_nemo["v2"], asked[0].audio
    request = earmark.request(audio, language="en", decoding=Decoding(strategy="sample", temperature=0.7, seed=3))
    made = earmark.record(model, request, audio)
    assert len(set(made.segments[0].ids)) > 3
    assert earmark.verify(made, request, audio, model, profile="provisional").outcome == "PASS"
    with pytest.raises(UsageError, match="searches no beams"):
        earmark.record(model, earmark.request(audio, language="en", decoding=Decoding(strategy="beam", beams=2)), audio)


def test_a_second_model_for_time_stamps_is_left_alone(made_by_nemo, tmp_path):
    """NeMo itself would restore it, by a config that nobody checked."""
    parts = {}
    with nemo_archives.tarfile.open(made_by_nemo["v2"]) as archive:
        for member in archive.getmembers():
            if member.isfile():
                parts[member.name.removeprefix("./")] = archive.extractfile(member).read()
    parts["timestamps_asr_model_config.yaml"] = b"target: os.system"
    parts["timestamps_asr_model_weights.ckpt"] = b"no weights"
    path = nemo_archives.pack(tmp_path / "m.nemo", parts)
    model = NemoCanaryLoader().load(path, **OPTIONS, engine="nemo")
    assert model.module.timestamps_asr_model is None
