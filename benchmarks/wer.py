"""Word error rate of a Whisper, Qwen3-ASR or Parakeet checkpoint folder on the held-out sets.

    python benchmarks/wer.py data/embedded/whisper-nano [--json FILE]

Sets: unseen text with known voices, unseen text with unseen voices, the latter with noise, real digits of a
speaker not trained on, and real sentences, decoded by the library's own class; and the categories of the challenge
set, transcribed by earmark (which cuts long clips). Words are compared as spoken (Whisper's basic normaliser); a second
figure uses Whisper's English normaliser, which joins spelled-out numbers into one word each ("five two" is "52").
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import (
    AutoProcessor,
    BatchFeature,
    ParakeetForCTC,
    ParakeetForTDT,
    PreTrainedModel,
    ProcessorMixin,
    Qwen3ASRForConditionalGeneration,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import earmark.challenges  # noqa: E402  (after the path)
from earmark.challenges import Challenge  # noqa: E402
from earmark.protocols import Model  # noqa: E402
from training.augment import TEST_NOISE, add_noise, load_noises  # noqa: E402
from training.corpus import SAMPLE_RATE_HZ, Clip, load_clips  # noqa: E402
from training.real_speech import LJ_HELD_OUT, TEST_SPEAKER, load_speech  # noqa: E402

BATCH = 25
NOISE_SNR_DB = 10.0
MAX_NEW_TOKENS = 160  # of Qwen3-ASR
PREFIX_TOKENS = 4  # of Whisper: start, language, task, no timestamps
LONGEST_S = 10  # of the training clips, for models without a window


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Figures of one test set; rates between 0 and 1.

    Attributes:
        clips: number of clips.
        word_error_rate: errors over words.
        number_word_error_rate: the same with every number written as one word of figures.
        exact: share of clips without any error.
        ends_itself: share of clips whose decoding ended before the length limit.
        long_durations: share of a TDT's emitted tokens, blanks among them, that last more than one frame; else None.
        seconds: decoding time.
    """

    clips: int
    word_error_rate: float
    number_word_error_rate: float
    exact: float
    ends_itself: float
    long_durations: float | None
    seconds: float


@dataclass(slots=True, kw_only=True)
class Decoded:
    """Transcripts of some clips, whether each decoding ended by itself, and a TDT's durations in frames."""

    texts: list[str]
    ended: list[bool]
    durations: list[int] = field(default_factory=list)

    def extend(self, other: Decoded) -> None:
        """Append the results of further clips."""
        self.texts += other.texts
        self.ended += other.ended
        self.durations += other.durations


def noisy(clips: list[Clip], speech: Path) -> list[Clip]:
    """The clips in kitchen noise (never trained on) at 10 dB; white noise without the speech folder."""
    rng = np.random.default_rng(0)
    noises = load_noises(speech, (TEST_NOISE,))
    waves = (add_noise(clip.samples.astype(np.float32), noises, rng, NOISE_SNR_DB) for clip in clips)
    return [
        Clip(samples=wave.clip(-32768, 32767).astype(np.int16), text=clip.text, speaker=clip.speaker)
        for wave, clip in zip(waves, clips, strict=True)
    ]


def real_sentences(speech: Path, window_s: float) -> list[Clip]:
    """LibriSpeech and the held-out LJ sentences that fit the window."""
    clips = load_speech(speech, "librispeech/") + load_speech(speech, "ljspeech/LJ001")[-LJ_HELD_OUT:]
    return [clip for clip in clips if len(clip.samples) <= window_s * SAMPLE_RATE_HZ]


def test_sets(corpus: Path, speech: Path, window_s: float) -> dict[str, Callable[[], list[Clip]]]:
    """Name of each set and how to load it; sets of real speech only where the folder is there."""
    sets: dict[str, Callable[[], list[Clip]]] = {
        "unseen text": lambda: list(load_clips(corpus, "test-text")),
        "unseen text and voice": lambda: list(load_clips(corpus, "test-voice")),
        "unseen text, noise 10 dB": lambda: noisy(list(load_clips(corpus, "test-text")), speech),
    }
    if speech.exists():
        sets["real digits, unseen speaker"] = lambda: [
            clip for clip in load_speech(speech, "fsdd/") if clip.speaker == TEST_SPEAKER
        ]
        sets["real sentences"] = lambda: real_sentences(speech, window_s)
    return sets


Waves = list[NDArray[np.float32]]


def featurise(processor: ProcessorMixin, waves: Waves) -> BatchFeature:
    """What a model that takes audio alone is given."""
    return processor(waves, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")


def decode_whisper(model: PreTrainedModel, processor: ProcessorMixin, waves: Waves) -> Decoded:
    """Greedy transcripts of a Whisper."""
    inputs = featurise(processor, waves)
    ids = model.generate(inputs.input_features, language="en", task="transcribe")
    end, limit = model.generation_config.eos_token_id, model.config.max_target_positions - PREFIX_TOKENS
    ended = [bool((row == end).any()) or len(row) < limit for row in ids]
    return Decoded(texts=processor.batch_decode(ids, skip_special_tokens=True), ended=ended)


def decode_qwen3(model: PreTrainedModel, processor: ProcessorMixin, waves: Waves) -> Decoded:
    """Greedy transcripts of a Qwen3-ASR that is asked for English."""
    inputs = processor.apply_transcription_request(audio=waves, language=["English"] * len(waves))
    ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)[:, inputs["input_ids"].shape[1] :]
    stops = torch.tensor(model.generation_config.eos_token_id)
    ended = torch.isin(ids, stops).any(1).tolist()
    return Decoded(texts=processor.tokenizer.batch_decode(ids, skip_special_tokens=True), ended=ended)


def decode_ctc(model: PreTrainedModel, processor: ProcessorMixin, waves: Waves) -> Decoded:
    """Greedy transcripts of a CTC model, which always ends."""
    ids = model.generate(**featurise(processor, waves))
    return Decoded(texts=processor.batch_decode(ids, skip_special_tokens=True), ended=[True] * len(ids))


def decode_tdt(model: PreTrainedModel, processor: ProcessorMixin, waves: Waves) -> Decoded:
    """Greedy transcripts of a TDT model; it ends when the durations have used up the frames."""
    inputs = featurise(processor, waves)
    found = model.generate(**inputs)
    ids, durations = found.sequences[:, 1:], found.durations[:, 1:]
    emitted = ids != model.config.pad_token_id
    frames = model._get_subsampling_output_length(inputs.attention_mask.sum(-1))  # noqa: SLF001  (has no public name)
    return Decoded(
        texts=processor.batch_decode(ids, skip_special_tokens=True),
        ended=((durations * emitted).sum(-1) >= frames).tolist(),
        durations=durations[emitted].tolist(),
    )


Decode = Callable[[PreTrainedModel, ProcessorMixin, Waves], Decoded]
KINDS: dict[str, tuple[type[PreTrainedModel], Decode]] = {
    "whisper": (WhisperForConditionalGeneration, decode_whisper),
    "qwen3_asr": (Qwen3ASRForConditionalGeneration, decode_qwen3),
    "parakeet_ctc": (ParakeetForCTC, decode_ctc),
    "parakeet_tdt": (ParakeetForTDT, decode_tdt),
}


@torch.no_grad()
def transcribe(model: PreTrainedModel, processor: ProcessorMixin, decode: Decode, clips: list[Clip]) -> Decoded:
    """Decode clips in batches."""
    decoded = Decoded(texts=[], ended=[])
    for start in track(range(0, len(clips), BATCH), description="decoding", transient=True):
        waves = [clip.samples.astype(np.float32) / 32768 for clip in clips[start : start + BATCH]]
        decoded.extend(decode(model, processor, waves))
    return decoded


def transcribe_challenges(model: Model, clips: list[Challenge]) -> Decoded:
    """Transcripts of challenge clips by earmark, which asks for English and cuts what is too long."""
    audio = [clip.audio() for clip in clips]
    asked = [earmark.Clip(audio=each, request=earmark.request(each, language="en")) for each in audio]
    evidence = list(
        track(earmark.record_many(model, asked), description="challenges", total=len(asked), transient=True)
    )
    stops = getattr(model, "stop_ids", {getattr(model, "end_id", None)})
    ended = [model.info.family != "autoregressive" or all(stops & set(s.ids) for s in e.segments) for e in evidence]
    return Decoded(texts=[e.text for e in evidence], ended=ended)


def score(clips: Sequence[Clip | Challenge], decoded: Decoded, seconds: float, verbose: bool) -> Outcome:
    """Compare the transcripts with what is said."""
    words, numbers = BasicTextNormalizer(), EnglishTextNormalizer({})
    wanted = [words(clip.text).strip() for clip in clips]
    said = [words(text).strip() for text in decoded.texts]
    if verbose:
        for expected, heard in list(zip(wanted, said, strict=True))[:12]:
            print(f"  {expected}\n  {heard}\n")
    return Outcome(
        clips=len(clips),
        word_error_rate=float(jiwer.wer(wanted, said)),
        number_word_error_rate=float(jiwer.wer([*map(numbers, wanted)], [*map(numbers, said)])),
        exact=float(np.mean([left == right for left, right in zip(wanted, said, strict=True)])),
        ends_itself=float(np.mean(decoded.ended)),
        long_durations=float(np.mean(np.array(decoded.durations) > 1)) if decoded.durations else None,
        seconds=round(seconds, 1),
    )


def evaluate(folder: Path, corpus: Path, speech: Path, verbose: bool = False) -> dict[str, Outcome]:
    """Figures of a checkpoint on every set, in fp32."""
    kind, decode = KINDS[json.loads((folder / "config.json").read_text())["model_type"]]
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    window_s = getattr(processor.feature_extractor, "chunk_length", LONGEST_S)
    outcomes = {}
    for name, load in test_sets(corpus, speech, window_s).items():
        clips = load()
        start = time.perf_counter()
        decoded = transcribe(model, processor, decode, clips)
        outcomes[name] = score(clips, decoded, time.perf_counter() - start, verbose)
    own = earmark.load(folder, dtype="float32")
    for category in sorted({clip.category for clip in earmark.challenges.load()}):
        challenges = list(earmark.challenges.load(category=category))
        start = time.perf_counter()
        decoded = transcribe_challenges(own, challenges)
        outcomes[f"challenges: {category}"] = score(challenges, decoded, time.perf_counter() - start, verbose)
    return outcomes


def show(outcomes: dict[str, Outcome], title: str) -> None:
    """Print the table."""
    headings = ("set", "clips", "WER %", "WER % (figures)", "exact %", "ends by itself %", "durations > 1 %", "s")
    table = Table(*headings, title=title)
    for name, outcome in outcomes.items():
        rates = (outcome.word_error_rate, outcome.number_word_error_rate, outcome.exact, outcome.ends_itself)
        shown = ["-" if rate is None else f"{100 * rate:.1f}" for rate in (*rates, outcome.long_durations)]
        table.add_row(name, str(outcome.clips), *shown, f"{outcome.seconds:.0f}")
    Console().print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, default=ROOT / "build/corpus")
    parser.add_argument("--speech", type=Path, default=ROOT / "../shared/speech")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="show some transcripts")
    arguments = parser.parse_args()
    outcomes = evaluate(arguments.folder, arguments.corpus, arguments.speech, arguments.verbose)
    show(outcomes, arguments.folder.name)
    if arguments.json:
        figures = {name: asdict(outcome) for name, outcome in outcomes.items()}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
