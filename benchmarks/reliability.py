"""The calibration signature of honest and cheating providers over the shipped clips, for one model of each family.

    python benchmarks/reliability.py [--models MODEL...]

Words are right or wrong against the clips' transcripts; confidences are the provider's in its evidence and the
reference's along the same output. Shifts of an honest provider are near 0 whatever its error rate.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import jiwer

import earmark
from earmark import Clip
from earmark.records import lines
from earmark.scenarios import scenario
from earmark.signature import calibration_signature

MODELS = ("embedded:whisper-nano", "embedded:parakeet-ctc-nano", "embedded:parakeet-tdt-nano")


def load_clips(language: str | None) -> tuple[list[Clip], list[str]]:
    """Return the shipped clips and what is said in them."""
    folder = Path(str(files("earmark.data"))) / "clips"
    rows = [row for _, row in lines.read(folder / "manifest.jsonl", lines.from_line)]
    audio = [earmark.load_audio(folder / row["audio_filepath"]) for row in rows]
    clips = [Clip(audio=a, request=earmark.request(a, language=language)) for a in audio]
    return clips, [row["text"] for row in rows]


def main() -> None:
    """Print one row per model and provider."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    cheats = (
        scenario("honest", batch_size=1),
        scenario("quantise", bits=8),
        scenario("quantise", bits=4, group=64),
    )
    print("| model | provider | words | WER | ECE | NCE | Brier | curve shift | ECE shift | NCE shift | Brier shift |")
    print("|---" * 11 + "|")
    for source in parser.parse_args().models:
        model = earmark.load(source, device="cpu")
        clips, spoken = load_clips("en" if model.info.family == "autoregressive" else None)
        for made in cheats:
            evidence = made.record(model, clips)
            found = calibration_signature(model, clips, evidence, spoken)
            own, rate = found.provider, jiwer.wer(spoken, [item.text for item in evidence])
            figures = [f"{rate:.1%}", *(f"{value:.3f}" for value in (own.ece, own.nce, own.brier))]
            shifts = [f"{value:.2g}" for value in found.shifts.values()]
            print("| " + " | ".join([source, made.name, str(own.words), *figures, *shifts]) + " |")


if __name__ == "__main__":
    main()
