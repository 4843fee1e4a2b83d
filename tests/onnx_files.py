"""A tiny random streaming transducer in ONNX, written by hand: protobuf messages are tags, lengths and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

WIDTH, VOCAB = 16, 12
FLOAT, INT64 = 1, 7
Field = tuple[int, "int | bytes | str"]


def message(*fields: Field) -> bytes:
    """Encode fields (number, value) as a protobuf message."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_varint(number << 3 | 2) + _varint(len(data)) + data)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def tensor(name: str, values: np.ndarray, *extra: Field) -> bytes:
    """Return an initializer: a TensorProto."""
    kind = INT64 if values.dtype == np.int64 else FLOAT
    data = values.astype("<i8" if kind == INT64 else "<f4").tobytes()
    return message(*((1, size) for size in values.shape), (2, kind), (8, name), (9, data), *extra)


def value_info(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> bytes:
    """Return an input or output: a ValueInfoProto; a string stands for a size that varies."""
    sizes = [(1, message((1 if isinstance(size, int) else 2, size))) for size in shape]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*sizes)))))))


def node(kind: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    """Return an operator: a NodeProto."""
    return message(*((1, name) for name in inputs), (2, output), (4, kind), *((5, a) for a in attributes))


def axis(name: str, value: int, *, several: bool = False) -> bytes:
    """Return an attribute: one integer, or a list of one."""
    return message((1, name), (8, value), (20, 7)) if several else message((1, name), (3, value), (20, 2))


def model(
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    metadata: Mapping[str, object],
) -> bytes:
    """Return a whole ModelProto."""
    graph = message(
        *((1, part) for part in nodes), (2, "g"), *((5, part) for part in tensors), *((11, part) for part in inputs),
        *((12, part) for part in outputs),
    )  # fmt: skip
    entries = [(14, message((1, key), (2, str(value)))) for key, value in metadata.items()]
    return message((1, 8), (7, graph), (8, message((2, 13))), *entries)


def encoder(
    seed: int = 0, *, rows: int | str = "N", mels: int = 80, state: int = WIDTH, extra: Sequence[Field] = ()
) -> bytes:
    """Return an encoder of 8 frames per chunk whose cached state fades by half from chunk to chunk."""
    rng = np.random.default_rng(seed)
    weights = [
        tensor("w", rng.normal(size=(mels, WIDTH)) * 0.05, *extra), tensor("at", np.arange(0, 32, 4)),
        tensor("half", np.array(0.5)), tensor("step", np.array([32])),
    ]  # fmt: skip
    nodes = [
        node("MatMul", ["x", "w"], "h"), node("Gather", ["h", "at"], "s", axis("axis", 1)),
        node("Add", ["s", "cached_a"], "a"), node("Tanh", ["a"], "encoder_out"),
        node("Mul", ["encoder_out", "half"], "new_cached_a"),
        node("Add", ["processed_lens", "step"], "new_processed_lens"),
    ]  # fmt: skip
    inputs = [
        value_info("x", (rows, 45, mels)), value_info("cached_a", (rows, 8, state)),
        value_info("processed_lens", (rows,), INT64),
    ]  # fmt: skip
    outputs = [
        value_info("encoder_out", (rows, 8, WIDTH)), value_info("new_cached_a", (rows, 8, WIDTH)),
        value_info("new_processed_lens", (rows,), INT64),
    ]  # fmt: skip
    return model(nodes, weights, inputs, outputs, {"T": 45, "decode_chunk_len": 32})


def decoder(seed: int = 0, vocab: int = VOCAB) -> bytes:
    """Return a stateless decoder: the mean of two embeddings."""
    weights = [tensor("e", np.random.default_rng(seed).normal(size=(vocab, WIDTH)))]
    nodes = [
        node("Gather", ["e", "y"], "both", axis("axis", 0)),
        node("ReduceMean", ["both"], "decoder_out", axis("axes", 1, several=True), axis("keepdims", 0)),
    ]
    sides = [value_info("y", ("N", 2), INT64)], [value_info("decoder_out", ("N", WIDTH))]
    return model(nodes, weights, *sides, {"context_size": 2, "vocab_size": vocab})


def joiner(seed: int = 0, vocab: int = VOCAB) -> bytes:
    """Return a joiner: a linear layer behind tanh of the sum."""
    weight = np.random.default_rng(seed).normal(size=(WIDTH, vocab))
    weight[:, 0] += 0.1
    nodes = [
        node("Add", ["encoder_out", "decoder_out"], "a"),
        node("Tanh", ["a"], "t"),
        node("MatMul", ["t", "w"], "logit"),
    ]
    inputs = [value_info("encoder_out", ("N", WIDTH)), value_info("decoder_out", ("N", WIDTH))]
    return model(nodes, [tensor("w", weight)], inputs, [value_info("logit", ("N", vocab))], {"joiner_dim": WIDTH})


def tokens(vocab: int = VOCAB) -> str:
    """Return tokens.txt."""
    pieces = ["<blk>", "<unk>", *(f"\u2581W{i}" if i % 2 else f"X{i}" for i in range(2, vocab))]
    return "".join(f"{piece} {i}\n" for i, piece in enumerate(pieces))


def write_checkpoint(folder: Path, seed: int = 0, **encoder_options: object) -> Path:
    """Write a whole checkpoint as icefall names it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder-epoch-1-avg-1.onnx").write_bytes(encoder(seed, **encoder_options))  # type: ignore[arg-type]
    (folder / "decoder-epoch-1-avg-1.onnx").write_bytes(decoder(seed))
    (folder / "joiner-epoch-1-avg-1.onnx").write_bytes(joiner(seed))
    (folder / "tokens.txt").write_text(tokens(), encoding="utf-8")
    return folder
