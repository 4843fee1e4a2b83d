"""Text alone under CTC and transducer models: a changed text is found, nothing ever passes."""

from __future__ import annotations

import frame_cases
import numpy as np
import pytest
import tiny_models

import earmark
from earmark import Clip, record_many
from earmark.errors import UsageError
from earmark.verifiers import _frames_text as frames_text


@pytest.fixture(scope="module", params=frame_cases.EMBEDDED)
def bench(request, clips):
    return frame_cases.Bench.embedded(request.param, clips[:4])


@pytest.fixture(scope="module")
def texts(bench):
    return [evidence.text for evidence in bench.evidence]


@pytest.fixture(scope="module")
def long_clip(bench, clips):
    audio = earmark.audio.from_samples(np.concatenate([clip.audio.samples for clip in clips[:6]]), 16_000)
    clip = Clip(audio=audio, request=earmark.request(audio))
    return clip, earmark.record(bench.model, clip.request, audio).text


def judge(text, clip, model, **options):
    verdict = earmark.verify_text(text, clip.request, clip.audio, model, **options)
    return verdict, frame_cases.codes(verdict)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_honest_text_is_inconclusive(bench, dtype):
    reference = bench.loaded(dtype=dtype, arithmetic="float32")
    provider = bench.loaded(dtype=dtype, attention="eager")
    for evidence, clip in zip(record_many(provider, bench.asked[:2], batch_size=2), bench.asked, strict=False):
        verdict, codes = judge(evidence.text, clip, reference)
        assert (verdict.outcome, codes) == ("INCONCLUSIVE", ["text.only"])
        assert verdict.fingerprint["likelihood_gap"] == pytest.approx(0, abs=0.05)


CHANGES = {
    "another clip's text": lambda texts, i: texts[i - 1],
    "a word more": lambda texts, i: f"{texts[i]} lamp",
    "the last word left out": lambda texts, i: " ".join(texts[i].split()[:-1]),
    "an edited word": lambda texts, i: " ".join([*texts[i].split()[:-2], "lamp", texts[i].split()[-1]]),
    "the first half": lambda texts, i: " ".join(texts[i].split()[: len(texts[i].split()) // 2]),
    "nothing": lambda _texts, _i: "",
    "far too long": lambda texts, i: " ".join(texts[i : i + 1] * 40),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_text_fails(bench, texts, change):
    for i in range(2):
        verdict, codes = judge(CHANGES[change](texts, i), bench.asked[i], bench.model)
        assert (verdict.outcome, "text.margin" in codes) == ("FAIL", True)
        assert verdict.fingerprint["likelihood_gap"] > 0


def test_half_of_a_long_text_leaves_audio_uncovered(bench, long_clip):
    clip, text = long_clip
    assert judge(text, clip, bench.model)[1] == ["text.only"]
    words = text.split()
    for half in (words[: len(words) // 2], words[len(words) // 2 :]):
        verdict, codes = judge(" ".join(half), clip, bench.model)
        assert verdict.outcome == "FAIL"
        assert set(codes) == {"text.margin", "text.uncovered"}


def test_letters_without_tokens_are_told_and_decide_nothing(bench, texts):
    verdict, codes = judge(f"{texts[0]} 84%", bench.asked[0], bench.model)
    assert (verdict.outcome, codes) == ("INCONCLUSIVE", ["text.unknown_letters", "text.only"])
    found = next(finding for finding in verdict.findings if finding.code == "text.unknown_letters")
    assert "'%48'" in found.found
    assert found.fault == "provider"


def test_case_and_punctuation_are_no_proof_of_a_cheat(bench, texts):
    verdict, codes = judge(f"{texts[0].capitalize()}.", bench.asked[0], bench.model)
    assert (verdict.outcome, codes) == ("INCONCLUSIVE", ["text.normalised", "text.only"])


def test_a_reported_average_is_compared(bench, texts):
    family = earmark.loading.family_of(bench.model)
    item = earmark.recording.segment_inputs(bench.asked[0], bench.model)[0]
    scores = family.text_scores(bench.model, [item], [texts[0]], batch_size=1, advance=lambda _: None)[0]
    for mean in scores.mean_logprobs:
        for value, outcome in ((mean, "INCONCLUSIVE"), (mean - 0.5, "FAIL")):
            given = [earmark.TextSegment(text=texts[0], mean_logprob=value)]
            assert judge(given, bench.asked[0], bench.model)[0].outcome == outcome


def test_a_near_tie_is_no_proof_of_a_cheat(bench, texts, monkeypatch):
    """Of two spellings the reference takes the better one; with a near-tie as wide as their gap, both are honest."""
    changed = CHANGES["the last word left out"](texts, 0)
    worst = judge(changed, bench.asked[0], bench.model)[0].fingerprint["margin_max"]
    for width, outcome in ((1.01, "INCONCLUSIVE"), (0.5, "FAIL")):
        ties = dict.fromkeys(("fp32", "fp16", "bf16"), width * worst)
        for module in ("earmark.text_only", "earmark.verifiers.ctc", "earmark.verifiers.transducer"):
            monkeypatch.setattr(f"{module}.TIE_NATS", ties)
        assert judge(changed, bench.asked[0], bench.model)[0].outcome == outcome


def test_words_that_the_reference_writes_too_keep_its_tokens(bench, texts):
    ids = earmark.record(bench.model, bench.asked[0].request, bench.asked[0].audio).segments[0].ids
    words = texts[0].split()
    cut = frames_text.cut_text(" ".join([*words[:-1], "lamp"]), ids, bench.model)
    assert bench.model.detokenise(cut.ids) == " ".join([*words[:-1], "lamp"])
    spelt = [i for i, word in zip(ids, bench.model.word_index(ids), strict=True) if word < len(words) - 1]
    assert list(cut.ids[: len(spelt)]) == spelt
    assert frames_text.cut_text(texts[0], ids, bench.model).ids == ids


def test_a_model_without_a_tokenizer_is_named(bench, monkeypatch):
    monkeypatch.delattr(type(bench.model).__mro__[1], "tokenise")
    with pytest.raises(UsageError, match="comes without a tokenizer"):
        judge("words", bench.asked[0], bench.model)


def test_letter_models_are_cut_by_their_tokenizer(tmp_path):
    model = earmark.load(tiny_models.wav2vec2(tmp_path, "wav2vec2"), device="cpu")
    ids = model.tokenise("the inn")
    assert model.detokenise(ids) == "the inn"
    assert frames_text.cut_text("the inn", (), model).ids == ids
    assert frames_text.cut_text("the inn 4", (), model).unknown == "4"


def test_the_command_line_judges_text(clips, tmp_path, capsys):
    from earmark.cli import main

    clip = tmp_path / "clip.flac"
    earmark.audio.write(clip, clips[0].audio)
    options = ["--model", "embedded:parakeet-tdt-nano", "--audio", str(clip), "--device", "cpu"]
    assert main(["verify", "--text", "call lucy now", *options]) == 1
    assert "text.margin" in capsys.readouterr().out
