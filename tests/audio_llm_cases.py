"""What the tests of encoder-decoders and audio-LLMs share: the same contracts for every model."""

from __future__ import annotations

import msgspec
import pytest

import earmark
from earmark import Clip


def ask(clips, options) -> list[Clip]:
    """Return the first clips, each with a request that has its own options."""
    return [Clip(audio=c.audio, request=earmark.request(c.audio, **o)) for c, o in zip(clips, options, strict=False)]


def check_verdicts(model, asked, evidence) -> None:
    """Honest evidence passes without a finding; with one token changed it fails."""
    for item, clip in zip(evidence, asked, strict=True):
        verdict = earmark.verify(item, clip.request, clip.audio, model, profile="provisional")
        assert (verdict.outcome, verdict.findings) == ("PASS", ())
        assert verdict.fingerprint["sketch_distance"] < 1e-3
    forged = _one_token_changed(model, evidence[0])
    verdict = earmark.verify(forged, asked[0].request, asked[0].audio, model, profile="provisional")
    assert verdict.outcome == "FAIL"


def _one_token_changed(model, evidence):
    segment, place = evidence.segments[0], 3
    other = next(i for i in range(60, 150) if i != segment.ids[place])
    ids = (*segment.ids[:place], other, *segment.ids[place + 1 :])
    changed = msgspec.structs.replace(segment, ids=ids, text=model.detokenise(ids))
    return msgspec.structs.replace(evidence, segments=(changed,), text=changed.text.strip())


def check_decoding(module, model, asked, evidence, inputs_of, **options) -> None:
    """Tokens and scores, recorded and forced, are those of the library's own decoding step by step.

    Args:
        module: The library's own network.
        model: Ours.
        asked: The clips.
        evidence: What ours made of them, with a sketch.
        inputs_of: Returns the library's inputs for our model and a clip.
        options: More options of the library's `generate`.
    """
    family = earmark.loading.family_of(model)
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True, **options}
    for clip, item in zip(asked, evidence, strict=True):
        inputs, ids = inputs_of(model, clip), item.segments[0].ids[:40]
        output = module.generate(**inputs, max_new_tokens=len(ids), **options)
        assert output.sequences[0, inputs["input_ids"].shape[1] :].tolist() == list(ids)
        trace = family.read(item.segments[0], clip.request, model, "sketch")
        items = earmark.recording.segment_inputs(clip, model)
        forced = family.replay(model, items, [trace], batch_size=1, advance=lambda _: None)[0].scores
        for position, (token, logits) in enumerate(zip(ids, output.logits, strict=True)):
            logprob = float(logits[0].log_softmax(-1)[token])
            assert logprob == pytest.approx(trace.scores.chosen[position], abs=1e-4)
            assert logprob == pytest.approx(forced.chosen[position], abs=1e-4)
