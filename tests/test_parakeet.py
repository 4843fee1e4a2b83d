"""Parakeet: our greedy path equals the library's `generate`, our forced pass its forward pass, our log P its loss."""

from __future__ import annotations

import shutil

import frame_cases
import numpy as np
import pytest
import tiny_models
import torch
import transformers

import earmark
from earmark import Clip, record_many
from earmark.checkpoint import embedded_names, resolve
from earmark.errors import ModelError, UsageError
from earmark.models._transformers import waveforms
from earmark.records.request import Decoding

TRAINED = [f"embedded:{name}" for name in embedded_names() if name.startswith("parakeet")]
KINDS = {"ctc": transformers.ParakeetForCTC, "rnnt": transformers.ParakeetForRNNT, "tdt": transformers.ParakeetForTDT}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random checkpoints; RNN-T often reaches its limit of tokens per frame."""
    root = tmp_path_factory.mktemp("parakeet")
    return {kind: tiny_models.parakeet(root / kind, kind, seed=1) for kind in KINDS}


@pytest.fixture(params=["ctc", "rnnt", "tdt", *TRAINED])
def opened(request, folders):
    """Return the model, the library's own network, and its processor."""
    source = folders.get(request.param, request.param)
    folder = resolve(source)[0]
    model = earmark.load(source, device="cpu")
    kind = type(model.module)
    own = kind.from_pretrained(folder, dtype=torch.float32).eval()
    return model, own, transformers.ParakeetProcessor.from_pretrained(folder)


def _inputs(processor, clips):
    return processor(waveforms([clip.audio.samples for clip in clips]), sampling_rate=16_000)


def _transcripts(evidence):
    return [list(item.segments[0].ids) for item in evidence]


def test_recording_equals_generate(opened, clips):
    """Token for token, and for transducers duration for duration, in a padded batch."""
    model, own, processor = opened
    chosen = frame_cases.without_language(clips[:6])
    inputs = _inputs(processor, chosen)
    if model.info.family == "ctc":
        evidence = list(record_many(model, chosen, batch_size=6))
        texts = processor.batch_decode(own.generate(**inputs))
        assert [item.text for item in evidence] == [str(text) for text in texts]
        return
    output = own.generate(**inputs)
    with torch.inference_mode():
        encoded = model.encode([clip.audio.samples for clip in chosen])
        paths = model.greedy(encoded)
    limit = output.sequences.shape[1] - 1
    for path, tokens, durations in zip(paths, output.sequences[:, 1:], output.durations[:, 1:], strict=True):
        ours = path[:limit]
        assert [step.token for step in ours] == tokens[: len(ours)].tolist()
        assert [step.duration for step in ours] == durations[: len(ours)].tolist()
        assert len(path) <= limit or model.durations, "only TDT has no limit per frame"


def test_transcripts_are_those_of_the_processor(opened, clips):
    model, own, processor = opened
    if model.info.family == "ctc":
        pytest.skip("the texts of CTC are compared above")
    chosen = frame_cases.without_language(clips[6:9])
    evidence = list(record_many(model, chosen, batch_size=1))
    for item, clip in zip(evidence, chosen, strict=True):
        sequence = own.generate(**_inputs(processor, [clip])).sequences[0].tolist()
        written = [i for i in sequence if i != model.blank_id][: len(item.segments[0].ids)]
        assert written == list(item.segments[0].ids)
        assert item.text == processor.decode(written, skip_special_tokens=True)


def test_forced_logits_and_log_p_equal_the_librarys(opened, clips):
    """At the nodes of the path the joint is that of the forward pass; log P is that of an independent loss."""
    model, own, processor = opened
    clip = frame_cases.without_language(clips[3:4])[0]
    evidence = earmark.record(model, clip.request, clip.audio, k=5)
    scores = earmark.loading.family_of(model).read(evidence.segments[0], clip.request, model, "scores")
    inputs, ids = _inputs(processor, [clip]), torch.tensor([scores.emitted], dtype=torch.long)
    with torch.inference_mode():
        if model.info.family == "ctc":
            logits = own(**inputs).logits[0, : scores.frames].log_softmax(-1)
            loss = torch.nn.functional.ctc_loss(
                logits[:, None], ids, [scores.frames], [len(scores.emitted)], model.blank_id, reduction="sum"
            )
            assert scores.log_likelihood == pytest.approx(-float(loss), abs=1e-3)
        else:
            fed = torch.cat([torch.tensor([[model.blank_id]]), ids], dim=1)
            joint = own(**inputs, decoder_input_ids=fed).logits[0]
            spoken = scores.tokens >= 0
            logits = joint[scores.path[:, 0], np.cumsum(spoken) - spoken]
            durations = logits[:, model.info.vocab_size :].log_softmax(-1)
            assert scores.durations == pytest.approx(durations.double().numpy(), abs=1e-4)
            logits = logits[:, : model.info.vocab_size].log_softmax(-1)
    listed = logits.gather(1, torch.as_tensor(scores.ids)).double().numpy()
    assert scores.logprobs == pytest.approx(listed, abs=1e-4)
    assert scores.blank == pytest.approx(logits[:, model.blank_id].double().numpy(), abs=1e-4)


@pytest.mark.parametrize("samples", [1600, 1759, 1760, 5000, 16_000, 47_999, 48_000])
def test_frames_are_counted_as_the_network_counts_them(folders, samples):
    model = earmark.load(folders["ctc"], device="cpu")
    with torch.inference_mode():
        encoded = model.encode([np.ones(samples, np.int16), np.ones(50_000, np.int16)])
    assert model.lengths(encoded) == [model.encoder_positions(samples), model.encoder_positions(50_000)]


def test_padding_does_not_change_the_numbers(opened, clips):
    model, _, _ = opened
    chosen = frame_cases.without_language(clips[:4])
    alone = list(record_many(model, chosen, batch_size=1, level="sketch"))
    verdicts = frame_cases.verify(model, chosen, alone, batch_size=4)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * 4
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) < 1e-4


def test_words_begin_where_the_tokenizer_says(opened):
    model, _, processor = opened
    ids = processor.tokenizer("the inn", add_special_tokens=False)["input_ids"]
    assert model.detokenise(ids) == "the inn"
    words = model.word_index([*ids, processor.tokenizer.pad_token_id])
    assert (words[0], max(words), words[-1]) == (0, 1, -1)
    doubled = [ids[-1], ids[-1]]
    assert len(model.detokenise(doubled)) == 2 * len(model.detokenise(doubled[:1])), "repeats are the transcript's own"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "translate"}, "cannot translate"),
        ({"prompt": "hello"}, "takes no prompt"),
        ({"decoding": Decoding(strategy="beam", beams=4)}, "decoding 'beam'"),
        ({"decoding": Decoding(timestamps=True)}, "writes no time tokens"),
    ],
)
def test_what_the_model_cannot_do_is_refused(folders, clips, options, words):
    model = earmark.load(folders["ctc"], device="cpu")
    with pytest.raises(UsageError, match=words):
        earmark.record(model, earmark.request(clips[0].audio, **options), clips[0].audio)


def test_damaged_checkpoints_are_named(folders, tmp_path):
    bare = shutil.copytree(folders["tdt"], tmp_path / "bare")
    for file in [*bare.glob("processor*"), *bare.glob("tokenizer*")]:
        file.unlink()
    with pytest.raises(ModelError, match="cannot be loaded as ParakeetForTDT"):
        earmark.load(bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        earmark.load(bare)


def test_long_audio_is_cut_at_silence(folders, clips):
    """A minute of audio becomes pieces of at most the window, which bounds the memory of attention."""
    model = earmark.load(folders["ctc"], device="cpu")
    audio = earmark.audio.from_samples(np.concatenate([clip.audio.samples for clip in clips]), 16_000)
    assert len(audio.samples) > model.info.window_samples
    clip = Clip(audio=audio, request=earmark.request(audio))
    evidence = list(record_many(model, [clip], level="sketch"))
    assert len(evidence[0].segments) > 1
    assert frame_cases.outcomes(model, [clip], evidence) == ["PASS"]
