"""Writes the card (README.md) of an embedded checkpoint from its figures and its run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

CARD = """# {name}

{summary}

| | |
|---|---|
{architecture}
| stored as | fp16 safetensors; the fp16 values are the model, upcast them for fp32 |
| training | {steps} steps in {minutes:.0f} minutes on {device}, seed {seed} |
| commands | {commands} |

## Data

English only: {hours} h of synthesised speech ({clips} clips, {sentences} distinct texts, 583 words, made by a
seeded grammar) said by espeak-ng (7 accents x 67 variants), flite (kal16, awb, slt) and festival (kal, slt-hts),
and {real_share} real speech: digits of three speakers of the Free Spoken Digit Dataset (CC-BY-SA-4.0), strung
together, and 20 LJ Speech sentences (public domain). Augmented with speed, noise, filters, small rooms, silence.

{history}

## Word error rates (fp32 computation on the stored weights)

{table}

The sentences of every synthesised set occur in no training shard. Unseen voices: espeak-ng accent en-us-nyc with ten
variants never trained on, flite rms, festival ked. Digits: speaker yweweler of the Free Spoken Digit Dataset. Real
sentences: LibriSpeech and the last eight LJ Speech clips of at most ten seconds. Words are compared as spoken;
reproduce with `python benchmarks/wer.py data/embedded/{name}`.

## Limits

A test model, not a product: it knows 583 words and the sentences of a small grammar, hears synthetic voices well
and real sentences hardly at all. {limits}
"""

WHISPER = """| class | `transformers.WhisperForConditionalGeneration` with `WhisperProcessor` |
| parameters | {parameters:,} ({fixed:,} of them the fixed sinusoids of the encoder) |
| encoder | {encoder_layers} layers, width {d_model}, {encoder_attention_heads} heads, feed-forward {encoder_ffn_dim} |
| decoder | {decoder_layers} layers, feed-forward {decoder_ffn_dim}, at most {max_target_positions} positions |
| features | {num_mel_bins} mels every 25 ms (hop 400, window 640 samples) in a window of 10 s; encoder at 20 Hz |
| vocabulary | 256 bytes, 176 merges, 15 special tokens, 501 timestamps: {vocab_size} |"""

WHISPER_LIMITS = """Trained with `<|en|><|transcribe|><|notimestamps|>` only: the other language
tokens, translation and timestamps exist in the vocabulary but mean nothing. A prompt after `<|startofprev|>` is
tolerated (5 % of the training samples had an unrelated one). On silence it gives `<|nospeech|>` after
`<|startoftranscript|>` and ends at once: unlike OpenAI's, its generation config lets `<|endoftext|>` come first."""

PARAKEET = """| class | `transformers.{class_name}` with `ParakeetProcessor` |
| parameters | {parameters:,} |
| encoder | FastConformer: {num_hidden_layers} layers, width {hidden_size}, {num_attention_heads} heads, \
feed-forward {intermediate_size}, kernel {conv_kernel_size}, {subsampling_conv_channels} channels of subsampling |
| head | {head} |
| features | {num_mel_bins} mels every 10 ms (hop 160, window 400 samples), subsampled eightfold to 12.5 Hz |
| vocabulary | {vocabulary} |"""

CTC = ("one linear layer on the encoder", "256 byte-pair pieces; the blank, which is also the padding: {vocab_size}")
TDT = (
    "one LSTM layer predicts, width {decoder_hidden_size}; joint with ReLU; durations {durations}",
    "256 byte-pair pieces, the padding, the blank: {vocab_size}",
)

PARAKEET_LIMITS = """It writes lower-case letters and apostrophes only. Trained on clips of at most ten seconds.
The CTC and the TDT model of one name come from one run and have the same encoder."""

QWEN3 = """| class | `transformers.Qwen3ASRForConditionalGeneration` with `Qwen3ASRProcessor` |
| parameters | {parameters:,} |
| encoder | {encoder_layers} layers, width {d_model}, {encoder_attention_heads} heads, feed-forward {encoder_ffn_dim}, \
{downsample_hidden_size} channels of subsampling; it sees one second at a time |
| language model | Qwen3: {num_hidden_layers} layers, width {hidden_size}, {num_attention_heads} heads \
({num_key_value_heads} of keys and values), feed-forward {intermediate_size}, {max_position_embeddings} positions |
| features | {num_mel_bins} mels every 10 ms (hop 160, window 400 samples), 13 positions a second |
| vocabulary | 256 bytes, 200 merges, 6 control tokens, the marker: {vocab_size}; input and output share it |"""

QWEN3_LIMITS = """It answers `language English<asr_text>...`, or `language None<asr_text>` where it hears no
words, in whatever language it is asked. Trained on clips of at most ten seconds, which is its window. One
training example in ten had a context (a few words, half of the time one that is said); most of the others none."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

HEADINGS = {
    "clips": "clips",
    "word_error_rate": "WER %",
    "exact": "exact %",
    "ends_itself": "ends by itself %",
    "long_durations": "durations above 1 %",
}


def table(figures: dict[str, dict[str, float | None]]) -> str:
    """Figures of benchmarks/wer.py as a Markdown table; columns without any figure are left out."""
    columns = [name for name in HEADINGS if any(row.get(name) is not None for row in figures.values())]
    rows = ["| set | " + " | ".join(HEADINGS[name] for name in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in figures.items():
        cells = [str(row[key]) if key == "clips" else _percent(row[key]) for key in columns]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def describe_whisper(config: dict[str, Any], parameters: int) -> dict[str, str]:
    """What is particular to a Whisper's card."""
    fixed = config["max_source_positions"] * config["d_model"]
    architecture = WHISPER.format(parameters=parameters, fixed=fixed, **config)
    return {"architecture": architecture, "limits": WHISPER_LIMITS, "real_share": "10 to 20 %"}


def describe_parakeet(config: dict[str, Any], parameters: int) -> dict[str, str]:
    """What is particular to a Parakeet's card."""
    head, vocabulary = (text.format(**config) for text in (TDT if "durations" in config else CTC))
    architecture = PARAKEET.format(
        class_name=config["architectures"][0],
        parameters=parameters,
        head=head,
        vocabulary=vocabulary,
        **config["encoder_config"],
    )
    return {"architecture": architecture, "limits": PARAKEET_LIMITS, "real_share": "20 %"}


def describe_qwen3(config: dict[str, Any], parameters: int) -> dict[str, str]:
    """What is particular to a Qwen3-ASR's card."""
    architecture = QWEN3.format(parameters=parameters, **config["audio_config"] | config["text_config"])
    return {"architecture": architecture, "limits": QWEN3_LIMITS, "real_share": "20 %"}


DESCRIBE = {
    "whisper": describe_whisper,
    "qwen3_asr": describe_qwen3,
    "parakeet_ctc": describe_parakeet,
    "parakeet_tdt": describe_parakeet,
}


def count_parameters(folder: Path) -> int:
    """Number of values in the stored tensors, without the running statistics of batch normalisation."""
    with safe_open(folder / "model.safetensors", framework="np") as tensors:
        names = [name for name in tensors.keys() if not name.endswith(STATISTICS)]  # noqa: SIM118  (no iterator)
        return sum(tensors.get_tensor(name).size for name in names)


def write_card(folder: Path, figures: dict[str, dict[str, float | None]], run: dict[str, object]) -> None:
    """Fill in the card of one checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    facts = DESCRIBE[config["model_type"]](config, count_parameters(folder))
    (folder / "README.md").write_text(CARD.format(name=folder.name, table=table(figures), **facts, **run))


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
