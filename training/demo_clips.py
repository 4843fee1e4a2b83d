"""The clips of the demo and the tests: held-out sentences, said by synthetic voices, as canonical FLAC.

Run `python -m training.demo_clips`; the same synthesisers give the same digests.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

from earmark import audio
from training.text import test_sentences
from training.voices import Utterance, cast_voice, synthesise

SEED = 20
FOLDER = Path("data/clips")
KNOWN, UNSEEN = 16, 8


def main() -> None:
    """Write data/clips/*.flac and their manifest."""
    rng = random.Random(SEED)  # noqa: S311 - the same clips every time
    sentences = test_sentences(KNOWN + UNSEEN, SEED)
    utterances = [cast_voice(text, rng, held_out=i >= KNOWN) for i, text in enumerate(sentences)]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        paths = synthesise(utterances, Path(work))
        rows = [_store(i, said, path) for i, (said, path) in enumerate(zip(utterances, paths, strict=True))]
    (FOLDER / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _store(number: int, said: Utterance, path: Path) -> dict[str, object]:
    clip = audio.load(path)
    name = f"{number:02d}.flac"
    audio.write(FOLDER / name, clip)
    return {
        "audio_filepath": name,
        "text": said.text,
        "language": "en",
        "voice": said.speaker,
        "voice_held_out": number >= KNOWN,
        "duration": round(clip.seconds, 3),
        "digest": clip.digest,
    }


if __name__ == "__main__":
    main()
