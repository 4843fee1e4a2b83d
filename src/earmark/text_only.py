"""Verification of text alone, for providers that return no numbers: it can find a cheat, and never rules one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earmark.errors import AudioError, AudioFileNotFoundError, UsageError
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.text import TEXT_STATISTICS, plain, split_text, word_statistics, words_of
from earmark.fingerprint.types import Fingerprint
from earmark.limits import max_tokens
from earmark.loading import family_of
from earmark.protocols import Model, SegmentInput, TextFamily, TextScores
from earmark.recording import AudioLike, Clip, load_audio, segment_inputs
from earmark.recording import request as make_request
from earmark.records import codec
from earmark.records.request import Request
from earmark.records.verdict import Finding, Verdict, broken, decide, note, unclear
from earmark.rules import Path
from earmark.verification import provenance

FRAMES_PER_TOKEN = 20
"""Frames for each token of slow speech, about: turns a bound of the likelihood per frame into one per token."""
UNCOVERED_S = 0.5
"""Seconds of loud audio that a text may leave without a token, beyond what the reference's own transcript does."""
LONGEST_WORD = 50
"""Letters per token beyond which a text is longer than any token sequence of the audio's duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSegment:
    """What a provider says of one segment.

    Attributes:
        text: Its transcript.
        mean_logprob: Average log-probability of its tokens in nats, the end token included; None where not reported.
    """

    text: str
    mean_logprob: float | None = None


def verify_text(
    text: str | Sequence[str | TextSegment],
    request: Request | bytes | Path | None,
    audio: AudioLike,
    reference: Model,
    *,
    raw: bool = True,
    batch_size: int = 8,
) -> Verdict:
    """Say whether the claimed model can have written this text; FAIL or INCONCLUSIVE, never PASS.

    The text is turned into tokens again and forced through the reference. Another model that writes the same text
    cannot be seen, since nothing but the text is known.

    Args:
        text: Transcript of the clip, or one entry per segment, with an average log-probability where there is one.
        request: The customer's request; None asks for a transcript in the language that the reference detects.
        audio: The clip.
        reference: The verifier's own copy of the claimed model, in the claimed precision.
        raw: Whether the provider says that this is the model's own text. If not (numbers written as digits, names
            corrected), the statistics are shown and decide nothing.
        batch_size: Segments at once.

    Returns:
        The verdict with the statistics of `earmark.fingerprint.text.TEXT_STATISTICS`.

    Raises:
        AudioFileNotFoundError: The clip does not exist.
        UsageError: The model's family cannot score text.

    Example:
        >>> import earmark
        >>> from importlib.resources import files
        >>> clip = files("earmark.data") / "clips" / "00.flac"
        >>> model = earmark.load("embedded:whisper-nano")
        >>> verify_text("the weather is nice today", None, str(clip), model).outcome
        'FAIL'
    """
    family = family_of(reference)
    if not isinstance(family, TextFamily):
        raise UsageError(f"the {family.name} family cannot score plain text yet; ask for evidence")
    try:
        canonical = load_audio(audio)
    except AudioFileNotFoundError:
        raise
    except AudioError as error:
        return _verdict([unclear("audio.unusable", "input", error, "audio that can be decoded")], None, reference)
    asked = _request(request, canonical)
    if asked.audio_digest != canonical.digest:
        found = f"{asked.audio_digest[:12]}... in the request"
        mismatch = unclear("audio.mismatch", "input", found, f"{canonical.digest[:12]}... of the audio")
        return _verdict([mismatch], None, reference)
    inputs = segment_inputs(Clip(audio=canonical, request=asked), reference)
    given = [TextSegment(text=text)] if isinstance(text, str) else [_segment(entry) for entry in text]
    whole = " ".join(segment.text.strip() for segment in given).strip()
    if any("\ud800" <= letter <= "\udfff" for letter in whole):
        halves = unclear(
            "text.malformed", "provider", "half a character, a lone surrogate", "a text of whole characters"
        )
        return _verdict([halves], None, reference)
    limit = LONGEST_WORD * max_tokens(len(canonical.samples))
    if len(whole) > limit:
        found = f"{len(whole)} letters for {canonical.seconds:.1f} s"
        return _verdict([broken("text.too_long", found, f"at most {limit}")], None, reference)
    model = reference.in_float32()
    parts = _parts(given, inputs, model, batch_size) if isinstance(text, str) else given
    if len(parts) != len(inputs):
        found = f"{len(parts)} texts for {len(inputs)} segments"
        odd = unclear("text.segments", "provider", found, "one text, or one for each segment")
        return _verdict([odd], None, reference)
    texts = [part.text for part in parts]
    scores = family.text_scores(model, inputs, texts, batch_size=batch_size, advance=lambda _: None)
    findings, fingerprint = _judge(scores, parts, reference, seconds=canonical.seconds, raw=raw)
    return _verdict(findings, fingerprint, reference)


def _request(request: Request | bytes | Path | None, canonical: AudioLike) -> Request:
    if request is None:
        return make_request(canonical)
    return request if isinstance(request, Request) else codec.load(request, Request)


def _segment(entry: str | TextSegment) -> TextSegment:
    return TextSegment(text=entry) if isinstance(entry, str) else entry


def _parts(
    given: list[TextSegment], inputs: Sequence[SegmentInput], model: Model, batch_size: int
) -> list[TextSegment]:
    """Cut the transcript of a whole clip where the reference's transcripts of the segments meet."""
    if len(inputs) == 1:
        return given
    own = family_of(model).record(model, inputs, k=1, level="scores", batch_size=batch_size, advance=lambda _: None)
    return [TextSegment(text=part) for part in split_text(given[0].text, [output.text for output in own])]


def _judge(
    scores: Sequence[TextScores], parts: Sequence[TextSegment], model: Model, *, seconds: float, raw: bool
) -> tuple[list[Finding], Fingerprint]:
    tie = TIE_NATS[model.info.precision]
    text = " ".join(part.text.strip() for part in parts)
    own = " ".join(score.own_text.strip() for score in scores)
    values = {**_likelihoods(scores, tie), **word_statistics(text, own)}
    values["mean_logprob_distance"] = _reported(scores, parts)
    values["uncovered_gap"] = _largest([score.uncovered_gap for score in scores])
    names = tuple(statistic.name for statistic in TEXT_STATISTICS)
    fingerprint = Fingerprint("text", names, tuple(values[name] for name in names))
    rates = [f"{len(words_of(one)) / seconds:.2f} words per second" for one in (text, own)]
    findings = [note("text.rate", rates[0], f"{rates[1]}, the reference's own")]
    beyond = _beyond(values, tie, model)
    if text == own:
        findings.append(note("text.equal", "the text that the reference writes itself", "the same, or a near-tie"))
        beyond = [finding for finding in beyond if finding.code == "text.mean_logprob"]
    elif plain(text) == plain(own):
        found = "the reference's text with other case or punctuation"
        findings.append(unclear("text.normalised", "provider", found, "the model's own text"))
        beyond = []
    elif unknown := "".join(sorted({letter for score in scores for letter in score.unknown})):
        found = f"{unknown[:40]!r}, for which the reference has no tokens"
        findings.append(unclear("text.unknown_letters", "provider", found, "the model's own text"))
        beyond = []
    findings += beyond if raw else [note(finding.code, finding.found, finding.expected) for finding in beyond]
    if decide(findings) != "FAIL":
        expected = "evidence of level scores or more; text alone cannot show which model wrote it"
        findings.append(unclear("text.only", "provider", "text without the numbers behind it", expected))
    return findings, fingerprint


def _likelihoods(scores: Sequence[TextScores], tie: float) -> dict[str, float]:
    margins = np.concatenate([np.asarray(score.margins, np.float64) for score in scores])
    gap = sum(score.own_likelihood - score.likelihood for score in scores)
    return {
        "margin_max": float(margins.max()) if margins.size else float("nan"),
        "unlikely_tokens": float(np.sum(margins > tie)) if margins.size else float("nan"),
        "likelihood_gap": gap / max(1, sum(score.positions for score in scores)),
        "stop_margin": _largest([score.stop_margin for score in scores]),
    }


def _largest(values: Sequence[float]) -> float:
    """Return the largest of the values that are known; NaN without one."""
    return max((value for value in values if not np.isnan(value)), default=float("nan"))


def _reported(scores: Sequence[TextScores], parts: Sequence[TextSegment]) -> float:
    """Return the largest difference of a reported average, before or after the model's rules; NaN without."""
    distances = [
        min(abs(part.mean_logprob - mean) for mean in score.mean_logprobs)
        for score, part in zip(scores, parts, strict=True)
        if part.mean_logprob is not None
    ]
    return max(distances, default=float("nan"))


def _beyond(values: dict[str, float], tie: float, model: Model) -> list[Finding]:
    """Return what the claimed model cannot have done: a token beyond a near-tie, another average."""
    findings = []
    at = f"at {model.info.precision}"
    if values["margin_max"] > tie:
        count = values["unlikely_tokens"]
        found = f"{count:.0f} tokens that the reference would not have written, the worst by {values['margin_max']:.3g}"
        findings.append(broken("text.margin", f"{found} nats", f"margins of at most {tie:g} nats {at}"))
    elif np.isnan(values["margin_max"]) and values["likelihood_gap"] > tie:
        found = f"{values['likelihood_gap']:.3g} nats per token below the reference's own transcript"
        findings.append(broken("text.likelihood", found, f"at most {tie:g} nats {at}"))
    if findings and values["uncovered_gap"] > UNCOVERED_S:
        found = (
            f"{values['uncovered_gap']:.1f} s of loud audio without a token, which the reference's transcript covers"
        )
        findings.append(broken("text.uncovered", found, f"at most {UNCOVERED_S:g} s more than the reference leaves"))
    bounds = family_of(model).provisional_bounds(model.info.precision)
    bound = bounds.get("loglik_distance", FRAMES_PER_TOKEN * bounds.get("loglik_distance_frame", float("inf")))
    distance = values["mean_logprob_distance"]
    if distance > bound:
        found = f"an average log-probability {distance:.3g} nats from the reference's"
        findings.append(broken("text.mean_logprob", found, f"at most {bound:g} nats {at}"))
    return findings


def _verdict(findings: Sequence[Finding], fingerprint: Fingerprint | None, model: Model) -> Verdict:
    return Verdict(
        outcome=decide(findings),
        proves="reconstructable",
        findings=tuple(findings),
        fingerprint=fingerprint,
        provenance=provenance(model),
    )
