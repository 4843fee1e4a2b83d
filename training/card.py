"""Writes the card (README.md) of an embedded checkpoint from its figures and its run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors import safe_open

CARD = """# {name}

{summary}

| | |
|---|---|
| class | `transformers.WhisperForConditionalGeneration` with `WhisperProcessor` |
| parameters | {parameters:,} ({fixed:,} of them the fixed sinusoids of the encoder) |
| encoder | {encoder_layers} layers, width {d_model}, {encoder_attention_heads} heads, feed-forward {encoder_ffn_dim} |
| decoder | {decoder_layers} layers, feed-forward {decoder_ffn_dim}, at most {max_target_positions} positions |
| features | {num_mel_bins} mels every 25 ms (hop 400, window 640 samples) in a window of 10 s; encoder at 20 Hz |
| vocabulary | 256 bytes, 176 merges, 15 special tokens, 501 timestamps: {vocab_size} |
| stored as | fp16 safetensors; the fp16 values are the model, upcast them for fp32 |
| training | {steps} steps in {minutes:.0f} minutes on {device}, seed {seed} |
| commands | {commands} |

## Data

English only: {hours} h of synthesised speech ({clips} clips, {sentences} distinct texts, 583 words, made by a
seeded grammar) said by espeak-ng (7 accents x 67 variants), flite (kal16, awb, slt) and festival (kal, slt-hts),
and 10 to 20 % real speech: digits of three speakers of the Free Spoken Digit Dataset (CC-BY-SA-4.0), strung
together, and 20 LJ Speech sentences (public domain). Augmented with speed, noise, filters, small rooms, silence.

{history}

## Word error rates (fp32 computation on the stored weights)

{table}

The sentences of every synthesised set occur in no training shard. Unseen voices: espeak-ng accent en-us-nyc with ten
variants never trained on, flite rms, festival ked. Digits: speaker yweweler of the Free Spoken Digit Dataset. Real
sentences: LibriSpeech and the last eight LJ Speech clips that fit the window. Words are compared as spoken;
reproduce with `python benchmarks/wer.py data/embedded/{name}`.

## Limits

A test model, not a product: it knows 583 words and the sentences of a small grammar, hears synthetic voices well
and real sentences hardly at all. Trained with `<|en|><|transcribe|><|notimestamps|>` only: the other language
tokens, translation and timestamps exist in the vocabulary but mean nothing. A prompt after `<|startofprev|>` is
tolerated (5 % of the training samples had an unrelated one). On silence it gives `<|nospeech|>` after
`<|startoftranscript|>` and ends at once: unlike OpenAI's, its generation config lets `<|endoftext|>` come first.
"""

HEADINGS = "| set | clips | WER % | exact % | ends by itself % |\n|---|---|---|---|---|"


def table(figures: dict[str, dict[str, float]]) -> str:
    """Figures of benchmarks/wer.py as a Markdown table."""
    rows = [HEADINGS]
    for name, row in figures.items():
        rates = (row["word_error_rate"], row["exact"], row["ends_itself"])
        rows.append(f"| {name} | {row['clips']} | " + " | ".join(f"{100 * rate:.1f}" for rate in rates) + " |")
    return "\n".join(rows)


def count_parameters(folder: Path) -> int:
    """Number of values in the stored tensors."""
    with safe_open(folder / "model.safetensors", framework="np") as tensors:
        return sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118  (no iterator)


def write_card(folder: Path, figures: dict[str, dict[str, float]], run: dict[str, object]) -> None:
    """Fill in the card of one checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    fixed = config["max_source_positions"] * config["d_model"]
    facts = {"parameters": count_parameters(folder), "fixed": fixed, "table": table(figures)}
    (folder / "README.md").write_text(CARD.format(name=folder.name, **config, **facts, **run))


def main() -> None:
    """Command line: a checkpoint folder, the figures and the facts of the run as JSON files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    arguments = parser.parse_args()
    figures, run = (json.loads(path.read_text()) for path in (arguments.figures, arguments.run))
    write_card(arguments.folder, figures, run)


if __name__ == "__main__":
    main()
