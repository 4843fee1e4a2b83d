"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Audio = Annotated[list[Path], typer.Argument(help="Files, folders or JSONL manifests.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines in place of a table.")]

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default cuda where there is one.")]
Dtype = Annotated[str, typer.Option(help="Claimed precision: float32, float16 or bfloat16.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Segments at once.")]
Attention = Annotated[str, typer.Option(help="Attention kernel: sdpa or eager.")]

Language = Annotated[str | None, typer.Option(help="Language code; the model detects it by default.")]
Task = Annotated[str, typer.Option(help="transcribe or translate.")]
Prompt = Annotated[str, typer.Option(help="Text that precedes the transcript.")]
Beams = Annotated[int, typer.Option(help="More than 1 for beam search.")]
Temperature = Annotated[float, typer.Option(help="More than 0 for sampling.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]
Timestamps = Annotated[bool, typer.Option(help="Let the model write time tokens.")]

Clips = Annotated[
    list[Path] | None, typer.Argument(help="Files, folders or JSONL manifests; by default the challenge set.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Most clips, spread evenly.")]
ExampleCount = Annotated[int, typer.Option("--examples", min=0, help="Clips that are looked at closely.")]
StudyLevel = Annotated[
    str, typer.Option(help="Level of the evidence: scores, sketch, compact, or listed as APIs show it.")
]
StudyLanguage = Annotated[str | None, typer.Option(help="Language that is requested, and of the challenge set.")]
StudyProfile = Annotated[
    str | None, typer.Option(help="Folder of a profile, `provisional` or `rules`; by default the model's own.")
]

ClipAudio = Annotated[Path | None, typer.Option("--audio", help="The clip, or the folder of the clips.")]
StoredRequest = Annotated[Path | None, typer.Option("--request", help="The customer's request, or their folder.")]
StoredReceipt = Annotated[Path | None, typer.Option("--receipt", help="The stored receipt, or their folder.")]
Delivered = Annotated[
    Path | None, typer.Option("--transcript", help="The text that you received, or the folder of NAME.txt.")
]
Policy = Annotated[Path | None, typer.Option(help="What is accepted: `strict`, `listed`, or a file.")]
Drawn = Annotated[Path | None, typer.Option(help="What `earmark draw` printed: all of it must be opened.")]
Reference = Annotated[str, typer.Option(help="The verifier's own copy of the claimed model.")]
Budget = Annotated[float, typer.Option(help="Share that is replayed, of the segments, in an audit of the clips.")]
BudgetLeast = Annotated[
    int,
    typer.Option(
        min=0,
        help="Segments of each clip that are replayed in any case; in an audit those of clips that are not drawn bet "
        "nothing.",
        show_default=False,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Encoder layers that are run over what --budget leaves out, where evidence holds a sketch. In an audit "
        "what such a look finds bets nothing.",
    ),
]
Engine = Annotated[str, typer.Option(help="Where clips are verified: local, or ray for a cluster (`earmark[ray]`).")]
Devices = Annotated[str | None, typer.Option(help="One local process on each: cuda:0,cuda:1.")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Local processes, or workers of ray; each has its own copy of the model.")
]
WorkerTimeout = Annotated[
    float,
    typer.Option(
        min=0,
        help="Seconds that a worker may take for a round of 32 clips, or to open the model; it is then started anew. "
        "0 for no limit.",
    ),
]
Checkpoint = Annotated[str, typer.Argument(help="embedded:NAME, a checkpoint folder or a hub id.")]


def loading(device: str | None, dtype: str, attention: str) -> dict[str, Any]:
    """Return the options with which `earmark.load` opens a model."""
    return {"device": device, "dtype": dtype, "attention": attention}
