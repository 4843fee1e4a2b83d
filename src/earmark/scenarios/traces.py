"""The numbers inside a trace, whatever its family: forgers change them and nothing else.

Traces of every family are MessagePack with the fields `k`, `ids`, `logprobs`, `chosen` and `entropy`, one row per
position; frame-synchronous ones add `path`, `blank`, `power` and `log_likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.protocols import SegmentOutput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEEDED = {"k", "ids", "logprobs", "chosen", "entropy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a trace says of each position.

    Attributes:
        emitted: The symbol written at each position, (positions,).
        ids: Listed tokens, (positions, k).
        logprobs: Their log-probabilities, falling, (positions, k).
        chosen: That of the symbol written, (positions,).
        entropy: Entropy of each position in nats, (positions,).
        blank: Log-probability of the blank, (positions,); None where there is no blank.
        power: log of sum p**0.33, (positions,); None where the family has none.
        rest: All other fields of the trace.
    """

    emitted: Ints
    ids: Ints
    logprobs: Floats
    chosen: Floats
    entropy: Floats
    blank: Floats | None
    power: Floats | None
    rest: dict[str, Any]

    def scalars(self) -> Floats:
        """Return chosen, entropy and, where there are some, blank and power, (positions, 2 or 4)."""
        columns = [self.chosen, self.entropy, self.blank, self.power]
        return np.stack([column for column in columns if column is not None], axis=1)


def open_numbers(output: SegmentOutput) -> Numbers:
    """Return the numbers of a piece.

    Raises:
        UsageError: Its trace is not of the usual form.
    """
    try:
        fields = msgspec.msgpack.decode(output.trace)
    except msgspec.MsgspecError:
        fields = None
    if not isinstance(fields, dict) or not fields.keys() >= NEEDED:
        raise UsageError(f"this scenario changes traces with the fields {', '.join(sorted(NEEDED))}; there are others")
    chosen = _floats(fields.pop("chosen"))
    n = len(chosen)
    path = np.frombuffer(fields["path"], "<i4").reshape(n, -1) if "path" in fields else None
    emitted = np.asarray(output.ids) if path is None else path[:, 1 if path.shape[1] > 1 else 0]
    return Numbers(
        emitted=emitted.astype(np.int64),
        ids=np.frombuffer(fields.pop("ids"), "<i4").reshape(n, -1).astype(np.int64),
        logprobs=_floats(fields.pop("logprobs")).reshape(n, -1),
        chosen=chosen,
        entropy=_floats(fields.pop("entropy")),
        blank=_floats(fields.pop("blank")) if "blank" in fields else None,
        power=_floats(fields.pop("power")) if "power" in fields else None,
        rest=fields,
    )


def close_numbers(numbers: Numbers, output: SegmentOutput) -> SegmentOutput:
    """Return the piece with these numbers in its trace."""
    fields = dict(numbers.rest)
    fields["ids"] = numbers.ids.astype("<i4").tobytes()
    for name in ("logprobs", "chosen", "entropy", "blank", "power"):
        values = getattr(numbers, name)
        if values is not None:
            fields[name] = values.astype("<f4").tobytes()
    return replace(output, trace=msgspec.msgpack.encode(fields))


def plausible(numbers: Numbers, own: Numbers, blank_id: int | None, vocab: int) -> Numbers:
    """Return numbers that no rule refuses: sorted, of a mass below 1, each value the same wherever it stands.

    Args:
        numbers: Numbers of a forger.
        own: What they were made from, which a model really said.
        blank_id: The blank, where there is one.
        vocab: Number of tokens.
    """
    order = np.argsort(-numbers.logprobs, axis=1, kind="stable")
    ids = np.take_along_axis(numbers.ids, order, axis=1)
    logprobs = np.minimum(np.take_along_axis(numbers.logprobs, order, axis=1), 0.0)
    logprobs -= np.maximum(np.logaddexp.reduce(logprobs, axis=1, keepdims=True), 0.0)
    # float32, as it will be written: a value that stands in two fields must not differ in its last digit
    logprobs = logprobs.astype(np.float32).astype(np.float64)
    chosen = _consistent(ids, logprobs, numbers.chosen, numbers.emitted)
    blank = None
    if numbers.blank is not None and blank_id is not None:
        blank = _consistent(ids, logprobs, numbers.blank, np.full(len(ids), blank_id))
    entropy = np.clip(numbers.entropy, 0.0, np.log(vocab))
    changed = replace(numbers, ids=ids, logprobs=logprobs, chosen=chosen, blank=blank, entropy=entropy)
    return _with_sums(changed, own, vocab)


def _with_sums(numbers: Numbers, own: Numbers, vocab: int) -> Numbers:
    """Keep the power sum above that of the lists, and the likelihood above that of the path."""
    power, rest = numbers.power, dict(numbers.rest)
    if power is not None:
        least = np.maximum(np.logaddexp.reduce(0.33 * numbers.logprobs, axis=1), 0.0)
        power = np.clip(power, least, 0.67 * np.log(vocab))
    if "log_likelihood" in rest:
        shift = float(numbers.chosen.sum() - own.chosen.sum())
        rest["log_likelihood"] = min(0.0, float(rest["log_likelihood"]) + shift)
    return replace(numbers, power=power, rest=rest)


def _consistent(ids: Ints, logprobs: Floats, values: Floats, symbols: Ints) -> Floats:
    """Return the values of symbols: the listed one, else one below all listed ones."""
    listed = ids == symbols[:, None]
    beyond = np.minimum(np.minimum(values, 0.0), logprobs[:, -1])
    result: Floats = np.where(listed.any(axis=1), np.where(listed, logprobs, 0.0).sum(axis=1), beyond)
    return result


def _floats(data: bytes) -> Floats:
    return np.frombuffer(data, "<f4").astype(np.float64)
