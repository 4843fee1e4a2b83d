"""Providers whose encoder runs in ONNX Runtime: honest in float32, or with its quantised integers (THREATS A2).

Recognisers are often served so, with an `.onnx` file beside an `.int8.onnx` one. The encoder, where nearly all of the
arithmetic of a recogniser lies, is exported by torch and runs with the kernels of ONNX Runtime; a decoder or head stays
with torch.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from earmark.errors import UsageError
from earmark.extras import need
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Scenario, Settings, run_record, running

if TYPE_CHECKING:
    import torch

KINDS = ("float32", "int8")
OPSET = 17
FAITHFUL = 1e-3
"""Most that an exported encoder may differ from torch's, as a share of its largest value: other kernels' noise."""
OPERATORS = ("MatMul", "Gemm")
"""What is quantised; ONNX Runtime has no fast integer convolutions on CPUs."""


def onnx_runtime(*, kind: Literal["float32", "int8"] = "float32") -> Scenario:
    """Return a provider whose encoder runs in ONNX Runtime.

    Args:
        kind: `float32` is honest; `int8` has the matrices quantised by its `quantize_dynamic`, inputs by the batch.

    Returns:
        The scenario. It records no sketch: what happens within the exported encoder cannot be seen.

    Raises:
        UsageError: The kind is unknown. What cannot be exported is refused when it runs.

    Example:
        >>> onnx_runtime().name, onnx_runtime(kind="int8").name
        ('honest-engine-onnxruntime', 'onnxruntime-int8')
    """
    if kind not in KINDS:
        raise UsageError(f"onnx_runtime takes {', '.join(KINDS)}; got {kind!r}")
    name = "honest-engine-onnxruntime" if kind == "float32" else f"onnxruntime-{kind}"
    made = running(
        name,
        f"the encoder in ONNX Runtime, {kind}",
        "nothing" if kind == "float32" else "memory and time",
        lambda reference: _elsewhere(reference, kind, name),
        honest=kind == "float32",
    )

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if settings.level != "scores":
            raise UsageError(f"{name} records evidence of the level scores alone; got {settings.level}")
        return made.produce(reference, inputs, settings)

    return dataclasses.replace(made, produce=produce)


def _elsewhere(reference: Model, kind: str, name: str) -> Model:
    """Return the model with its encoder in ONNX Runtime."""
    for library in ("onnx", "onnxruntime"):
        need(library, what=f"the scenario {name}", extra="onnx")
    if reference.info.precision != "fp32" or reference.info.device != "cpu":
        found = f"{reference.info.precision} on {reference.info.device}"
        raise UsageError(f"{name} runs on CPUs and takes fp32 weights; {reference.info.name} has {found}")
    module = copy.deepcopy(reference.module)
    encoder, made = _encoder(module, name), reference.with_module(module)
    called = _calls(encoder, made)
    file = _export(encoder, called[0], name)
    plain = _forward(encoder, _session(file), called[0])
    _check_faithful(called, plain, name)
    encoder.forward = plain if kind == "float32" else _forward(encoder, _session(_quantised(file)), called[0])
    return made


def _encoder(module: torch.nn.Module, name: str) -> Any:
    """Return the network's encoder of audio, by the name that transformers gives it."""
    for path in ("encoder", "model.encoder", "audio_tower", "model.audio_tower", "thinker.audio_tower"):
        try:
            return module.get_submodule(path)
        except AttributeError:
            continue
    raise UsageError(f"{name} finds no encoder in {type(module).__name__}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """A call of an encoder: tensors and other arguments by name, tensors that came back, and their class."""

    tensors: dict[str, torch.Tensor]
    constants: dict[str, Any]
    results: dict[str, torch.Tensor]
    kind: type


def _calls(encoder: torch.nn.Module, model: Model) -> list[_Call]:
    """Return how the model calls its encoder: a batch of two clips, then one of another length alone."""
    import torch

    seen: list[_Call] = []
    names = inspect.signature(encoder.forward)

    def keep(_: Any, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        given = names.bind(*args, **options).arguments
        given |= given.pop("kwargs", {})
        tensors = _tensors(given)
        constants = {key: value for key, value in given.items() if key not in tensors}
        seen.append(_Call(tensors, constants, _tensors(output), type(output)))  # callers add to the output

    own = own_inputs(model, 3)
    handle = encoder.register_forward_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            run_record(model, own[:2], Settings(batch_size=2))
            run_record(model, own[2:], Settings(batch_size=1))
    finally:
        handle.remove()
    return seen


def _tensors(values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors among named values, as tensors that a trace may keep."""
    import torch

    return {name: value.clone() for name, value in values.items() if torch.is_tensor(value)}


def _export(encoder: torch.nn.Module, call: _Call, name: str) -> bytes:
    """Return the encoder as an ONNX file for inputs of any size."""
    import torch

    results = list(call.results)

    class Plain(torch.nn.Module):
        """The encoder with tensors for arguments and results."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            output = self.encoder(**dict(zip(call.tensors, values, strict=True)), **call.constants)
            return tuple(output[key] for key in results)

    axes = {key: dict(enumerate(_axes(key, value))) for key, value in (call.tensors | _outputs(call)).items()}
    with tempfile.TemporaryDirectory(prefix="earmark-onnx-") as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder, "encoder.onnx")
        warnings.simplefilter("ignore")  # of sizes that the trace takes for constants; see _check_faithful
        try:
            torch.onnx.export(
                Plain().eval(),
                tuple(call.tensors.values()),
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(call.tensors),
                output_names=[f"out_{key}" for key in results],
                dynamic_axes=axes,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{name}: torch cannot export {type(encoder).__name__}: {reason}") from error
        return file.read_bytes()


def _outputs(call: _Call) -> dict[str, torch.Tensor]:
    return {f"out_{key}": value for key, value in call.results.items()}


def _axes(key: str, value: torch.Tensor) -> list[str]:
    return [f"{key}_{axis}" for axis in range(value.dim())]


def _quantised(file: bytes) -> bytes:
    """Return the file with 8-bit matrices, whose inputs are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="earmark-onnx-") as folder:
        plain, made = Path(folder, "encoder.onnx"), Path(folder, "encoder.int8.onnx")
        plain.write_bytes(file)
        logging.disable(logging.WARNING)  # it advises a preparation that changes nothing here
        try:
            quantize_dynamic(plain, made, weight_type=QuantType.QInt8, op_types_to_quantize=list(OPERATORS))
        finally:
            logging.disable(logging.NOTSET)
        return made.read_bytes()


def _session(file: bytes) -> Any:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _forward(encoder: torch.nn.Module, session: Any, example: _Call) -> Callable[..., Any]:
    """Return what takes the place of the encoder's own `forward`."""
    import torch

    names, wanted = inspect.signature(encoder.forward), {own.name for own in session.get_inputs()}
    kind, results = example.kind, list(example.results)

    def forward(*args: Any, **options: Any) -> Any:
        given = names.bind(*args, **options).arguments
        given |= given.pop("kwargs", {})
        fed = {key: value.numpy() for key, value in _tensors(given).items() if key in wanted}
        made = session.run([f"out_{key}" for key in results], fed)
        return kind(**dict(zip(results, map(torch.from_numpy, made), strict=True)))

    return forward


def _check_faithful(calls: Sequence[_Call], forward: Callable[..., Any], name: str) -> None:
    """Refuse an export that is another network, as one that took a size for a constant."""
    for call in calls:
        try:
            made = _tensors(forward(**call.tensors, **call.constants))
        except Exception as error:  # ONNX Runtime's errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{name}: the exported encoder runs on no other length: {reason}") from error
        for key, value in call.results.items():
            same = made[key].shape == value.shape
            off = float((made[key].double() - value.double()).abs().max()) if same else float("inf")
            if not off <= FAITHFUL * max(float(value.double().abs().max()), 1e-6):
                raise UsageError(
                    f"{name}: the exported encoder differs by {off:.2g} in {key}; it is not the same network"
                )
