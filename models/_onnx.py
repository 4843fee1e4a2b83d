"""ONNX graphs as torch modules: read with care, run by ONNX Runtime, never by code that a file brings along."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from earmark.errors import ModelError

MAX_BYTES = 2 << 30
"""A graph without external data is one protobuf message, which cannot be larger."""
MAX_DEPTH = 64

FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Where tensors can stand in an ONNX model: field numbers of onnx.proto that lead to them."""
EXTERNAL_FIELDS = (13, 14)
"""TensorProto.external_data and data_location."""


class OnnxGraph(nn.Module):
    """One ONNX graph in a session of ONNX Runtime; called with tensors by name, it returns tensors by name.

    Args:
        path: The file.
        device: `cpu`, or `cuda` where ONNX Runtime has that provider.
        threads: Threads within an operator.

    Attributes:
        digest: SHA-256 of the file.
        metadata: What the exporter wrote down.
        inputs: Name to shape of every input; names or None stand for sizes that vary.
        outputs: The same of every output.

    Raises:
        ModelError: The file is no ONNX graph, keeps weights in other files, or needs operators that are not there.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int = 1) -> None:
        super().__init__()
        self.path, self.device, self.threads = path, device, threads
        data = _read(path)
        refuse_external_data(data, path.name)
        self.digest = hashlib.sha256(data).hexdigest()
        self._session = _open(data, path, device, threads)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        self.outputs = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        self._types = {value.name: value.type for value in self._session.get_inputs()}

    def forward(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            values: Tensor of each input by name.

        Returns:
            Tensor of each output by name, on the CPU.
        """
        fed = {name: value.detach().cpu().contiguous().numpy() for name, value in values.items()}
        names = list(self.outputs)
        return {name: torch.from_numpy(value) for name, value in zip(names, self._session.run(names, fed), strict=True)}

    def zeros(self, name: str, batch: int) -> Tensor:
        """Return zeros for an input; sizes that vary become `batch`."""
        shape = [size if isinstance(size, int) else batch for size in self.inputs[name]]
        return torch.zeros(shape, dtype=torch.int64 if "int64" in self._types[name] else torch.float32)

    def with_threads(self, threads: int) -> OnnxGraph:
        """Return the same graph in a session of that many threads."""
        return OnnxGraph(self.path, device=self.device, threads=threads)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: neither graph nor session can be changed."""
        return self


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path.name} has more than {MAX_BYTES} bytes; no single ONNX graph has")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _open(data: bytes, path: Path, device: str, threads: int) -> Any:
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a busy machine has others to serve
    wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
    try:
        return ort.InferenceSession(data, options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime has one class of errors per status and no common base; each means that the graph is unusable
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path} is no graph that ONNX Runtime can run: {reason}") from error


def runtime() -> Any:
    """Return the onnxruntime module.

    Raises:
        ModelError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("ONNX checkpoints need ONNX Runtime: pip install 'earmark[onnx]'") from error
    return onnxruntime


def runs_on(device: str) -> str:
    """Return where ONNX Runtime will run: the CPU, if it was installed without CUDA.

    Example:
        >>> runs_on("cpu")
        'cpu'
    """
    usable = device.startswith("cuda") and "CUDAExecutionProvider" in runtime().get_available_providers()
    return "cuda" if usable else "cpu"


def digest_of(graphs: Sequence[OnnxGraph]) -> str:
    """Return the digest of a checkpoint made of several graphs: SHA-256 over the digests of their files, in order."""
    return hashlib.sha256(b"earmark/onnx/1\0" + b"".join(bytes.fromhex(g.digest) for g in graphs)).hexdigest()


# External data


def refuse_external_data(data: bytes, name: str) -> None:
    """Refuse a graph whose tensors lie in other files: a path in a file could lead anywhere.

    Args:
        data: The serialised ONNX model.
        name: Its name, for the message.

    Raises:
        ModelError: It has such tensors, or is no protobuf message.

    Example:
        >>> tensor = bytes([0x70, 1])  # data_location: EXTERNAL
        >>> graph = bytes([0x2A, len(tensor)]) + tensor
        >>> refuse_external_data(bytes([0x3A, len(graph)]) + graph, "m.onnx")
        Traceback (most recent call last):
        ...
        earmark.errors.ModelError: m.onnx keeps weights in other files; export it with all weights inside

    Source: onnx.proto, https://protobuf.dev/programming-guides/encoding.
    """
    try:
        external = _is_external(memoryview(data), "model", MAX_DEPTH)
    except (IndexError, ValueError) as error:
        raise ModelError(f"{name} is no ONNX graph: it is damaged or of another format; fetch it again") from error
    if external:
        raise ModelError(f"{name} keeps weights in other files; export it with all weights inside")


def _is_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth == 0:
        raise ValueError("nested too deeply")
    for number, value in _fields(message):
        if kind == "tensor" and number in EXTERNAL_FIELDS and value not in (0, b""):
            return True
        inner = FIELDS.get(kind, {}).get(number)
        if inner and isinstance(value, memoryview) and _is_external(value, inner, depth - 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of every field of a protobuf message; fixed-width values as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("a field ends behind its message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 10 bytes")
