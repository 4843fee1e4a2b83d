"""Which scenarios a benchmark runs on a model: honest ones, and the cheats of docs/explanation/threats.md.

Threats without an entry: A22 (fewer denoising steps), since there is no diffusion family yet; those of the protocol
(A24 to A33), which are no property of a provider's model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from earmark.protocols import Model
from earmark.recording import Clip
from earmark.scenarios.audio import drop_audio, drop_silence, drop_windows, speed_up, telephone_band
from earmark.scenarios.beams import beam_search
from earmark.scenarios.core import Scenario
from earmark.scenarios.forged import copied_shapes, fabricated, other_audio, restamped
from earmark.scenarios.forger import forger
from earmark.scenarios.gptq import gptq
from earmark.scenarios.honest import honest, honest_scenarios
from earmark.scenarios.libraries import bitsandbytes, torchao
from earmark.scenarios.mixing import mixed
from earmark.scenarios.network import quantise_activations, quantise_cache, skip_frames, skip_layers
from earmark.scenarios.onnx import onnx_runtime
from earmark.scenarios.processes import instruction_set
from earmark.scenarios.speculation import speculative
from earmark.scenarios.stand_in import other_checkpoint, other_precision, other_request, rescored
from earmark.scenarios.stopping import stop_early
from earmark.scenarios.tampered import DAMAGES, laundered, malformed
from earmark.scenarios.weights import float8, low_rank, noise, normal_float4, prune, quantise

HONEST = "honest"
"""What an entry without a threat is called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A scenario and the number of the threat that it simulates."""

    threat: str
    scenario: Scenario


def catalogue(
    model: Model, others: Mapping[str, Model] | None = None, *, source: str = "", clips: Sequence[Clip] | None = None
) -> list[Entry]:
    """Return the scenarios that make sense for a model.

    Args:
        model: The reference.
        others: Checkpoints with the same tokens, by name; the first is the cheap model of those who need one, the
            reference in 4 bits where there is none.
        source: Where the reference was loaded from, for providers in another process; none without.
        clips: Clips that forgers have of their own; by default those that ship with earmark.

    Returns:
        Honest scenarios first.

    Example:
        >>> import earmark
        >>> entries = catalogue(earmark.load("embedded:whisper-nano", device="cpu"))
        >>> sorted({entry.threat for entry in entries})[:6]
        ['A1', 'A10', 'A11', 'A12', 'A13', 'A14']
    """
    cheap = next(iter((others or {}).values()), None)
    writer = quantise(bits=4, group=64).alternative(model) if cheap is None else cheap
    parts = [
        _honest(source, compiled=model.info.family != "autoregressive"),  # there it takes minutes per model
        _weights(),
        _network(),
        _audio(),
        _made_up(cheap, clips),
        [("A1", rescored(writer=writer))],
    ]
    if model.info.family == "autoregressive":
        parts.append(_written_token_by_token(writer))
    found = [Entry(threat, scenario) for part in parts for threat, scenario in part]
    return found + [Entry("A4, A6", other_checkpoint(model=own, name=name)) for name, own in (others or {}).items()]


def _honest(source: str, *, compiled: bool) -> list[tuple[str, Scenario]]:
    own = [*honest_scenarios(), honest(padding_s=10.0), honest(device="cuda"), onnx_runtime()]
    own += [honest(compiled="aot_eager")] if compiled else []
    own += [instruction_set(source=source, isa=isa) for isa in ("default", "avx2")] if source else []
    return [(HONEST, scenario) for scenario in own]


def _weights() -> list[tuple[str, Scenario]]:
    eight_bits: Callable[..., Scenario] = lambda **options: quantise(bits=8, **options)  # noqa: E731
    plain = [
        eight_bits(), eight_bits(sharing="tensor"), eight_bits(part="encoder"), quantise(bits=4, group=64),
        quantise(bits=4, group=128), normal_float4(), float8(), quantise_activations(),
        torchao(kind="int8"), torchao(kind="int8-dynamic"), torchao(kind="fp8"),
        bitsandbytes(kind="int8"), bitsandbytes(kind="nf4"), onnx_runtime(kind="int8"),
    ]  # fmt: skip
    outside = [
        eight_bits(symmetric=False), eight_bits(rotation="hadamard"), eight_bits(rounding="stochastic"),
        gptq(bits=8, group=None), gptq(bits=4),
    ]  # fmt: skip
    tuned = [
        low_rank(),
        low_rank(rank=1, size=1e-3),
        prune(share=0.01),
        prune(share=0.1),
        noise(),
        noise(size=2.0**-12),
    ]
    rows = [("A2", scenario) for scenario in plain] + [("A2b", scenario) for scenario in outside]
    rows += [("A5", scenario) for scenario in tuned]
    return [*rows, ("A16", other_precision(dtype="bfloat16")), ("A16", other_precision(dtype="float16"))]


def _network() -> list[tuple[str, Scenario]]:
    caches = [("A3", quantise_cache(kind=kind)) for kind in ("fp8", "int8", "int4")]
    return [*caches, ("A8", skip_frames()), ("A15", skip_layers())]


def _audio() -> list[tuple[str, Scenario]]:
    ends = [drop_audio(seconds=seconds) for seconds in (0.25, 0.5, 1.0)]
    return [
        *(("A7", scenario) for scenario in (*ends, drop_windows(), drop_silence())),
        ("A8", speed_up()),
        ("A8", telephone_band()),
    ]


def _made_up(cheap: Model | None, clips: Sequence[Clip] | None) -> list[tuple[str, Scenario]]:
    four_bits = quantise(bits=4, group=64)
    return [
        ("A10", other_audio(clips=clips)),
        ("A11", fabricated(writer=cheap)),
        ("A12", copied_shapes(writer=cheap, clips=clips)),
        ("A18", mixed(cheat=four_bits, share=0.5)),
        ("A18", mixed(cheat=four_bits, share=0.1)),
        ("A19", restamped()),
        *(("A20", malformed(kind=kind)) for kind in DAMAGES),  # type: ignore[arg-type]
        ("A21", laundered()),
        ("A23", forger(kind="ridge", writer=cheap, clips=clips)),
        ("A23", forger(kind="mlp", writer=cheap, clips=clips)),
    ]


def _written_token_by_token(writer: Model) -> list[tuple[str, Scenario]]:
    return [
        (HONEST, speculative(draft=writer)),
        (HONEST, beam_search()),
        ("A7", stop_early()),
        ("A9", other_request(language="de")),
        ("A9", other_request(prompt="something else")),
        ("A13", beam_search(done=1)),
        ("A14", speculative(accept=0.3, draft=writer)),
        ("A17", other_request(temperature=0.4)),
    ]
