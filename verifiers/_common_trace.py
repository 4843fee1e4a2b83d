"""What the traces of all families share: bounded arrays, listed tokens, and the rules that need no replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError, UsageError
from earmark.limits import MOST_K
from earmark.protocols import Model
from earmark.records.policy import Policy
from earmark.records.verdict import Finding, broken, unclear

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")

MAX_K = 1024
MAX_LOGPROB = 1e-4
"""A log-probability above 0 by more than this is no rounding error."""
MAX_MASS = 1.0 + 1e-3
"""The listed probabilities of one position may not add up to more."""


def check_k(k: int, model: Model) -> None:
    """Refuse to record more listed tokens than there are.

    Raises:
        UsageError: k is outside 1 to the size of the vocabulary, or 1024.
    """
    largest = min(MAX_K, model.info.vocab_size)
    if not 1 <= k <= largest:
        raise UsageError(f"k = {k}; {model.info.name} lists between 1 and {largest} tokens per position")


def decode_trace(data: bytes, kind: type[T]) -> T:
    """Decode the bytes of one trace.

    Raises:
        TraceError: They are not well formed.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise TraceError(f"the trace is not well formed: {str(error)[:200]}") from error


def array(data: bytes, kind: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Return the array behind a field of a trace: int64 of `<i4`, float64 of floats.

    Raises:
        TraceError: The field has another size.
    """
    expected = int(np.prod(shape)) * np.dtype(kind).itemsize
    if len(data) != expected:
        raise TraceError(f"trace field {name!r} has {len(data)} bytes; expected {expected} for shape {shape}")
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused later, by name
        return np.frombuffer(data, dtype=kind).reshape(shape).astype(np.int64 if kind == "<i4" else np.float64)


def check_ids(ids: Sequence[int], k: int, model: Model) -> None:
    """Every id is a token of the model, and it lists no more tokens than it has.

    Raises:
        TraceError: It does not hold.
    """
    vocab = model.info.vocab_size
    if k > vocab:
        raise TraceError(f"k = {k}; {model.info.name} has only {vocab} tokens")
    largest = max(ids, default=0)
    if largest >= vocab:
        raise TraceError(f"token id {largest}; {model.info.name} has only {vocab} tokens", code="token.unknown")


def check_lists(ids: Ints, logprobs: Floats, vocab: int, mass: float = MAX_MASS) -> None:
    """Listed tokens exist, are distinct, stand in falling order, and are no more than certain together.

    Args:
        ids: Listed tokens, (positions, k).
        logprobs: Their log-probabilities, (positions, k); NaN where censored.
        vocab: Number of tokens.
        mass: Largest sum of the probabilities of one position.

    Raises:
        TraceError: It does not hold.
    """
    ranked = np.sort(ids, axis=1)
    if ids.min() < 0 or ids.max() >= vocab:
        raise TraceError(f"listed token ids from {ids.min()} to {ids.max()}; expected 0 to {vocab - 1}")
    if (ranked[:, 1:] == ranked[:, :-1]).any():
        raise TraceError("a token is listed twice at one position", code="trace.duplicate")
    known = np.where(np.isnan(logprobs), -np.inf, logprobs)
    if (known[:, 1:] > known[:, :-1]).any():
        raise TraceError("listed log-probabilities are not in falling order", code="trace.order")
    check_logprobs("logprobs", logprobs[~np.isnan(logprobs)])
    check_mass(logprobs, mass)


def check_logprobs(name: str, values: Floats) -> None:
    """Values are finite and at most 0.

    Raises:
        TraceError: They are not.
    """
    if not (np.isfinite(values).all() and (values <= MAX_LOGPROB).all()):
        raise TraceError(f"{name} holds values that are not finite or above {MAX_LOGPROB}", code="trace.value")


def check_mass(logprobs: Floats, largest: float = MAX_MASS) -> None:
    """Probabilities of one position add up to no more than they can; (positions, k), NaN where censored.

    Raises:
        TraceError: They do not.
    """
    mass = np.nansum(np.exp(logprobs), axis=1).max()
    if mass > largest:
        raise TraceError(f"listed probabilities of one position add up to {mass:.4f}", code="trace.mass")


def check_entropy(entropy: Floats, vocab: int) -> None:
    """Entropies lie between 0 and log(vocab).

    Raises:
        TraceError: They do not.
    """
    bound = np.log(vocab) + 1e-3
    if not ((entropy >= -1e-3) & (entropy <= bound)).all():
        raise TraceError(f"an entropy outside 0 to {bound:.3f} nats", code="trace.value")


def check_sketch(sketch: Floats) -> None:
    """The sketch is finite.

    Raises:
        TraceError: It is not.
    """
    if not np.isfinite(sketch).all():
        raise TraceError("the sketch holds values that are not finite", code="trace.value")


def check_chosen(ids: Ints, logprobs: Floats, chosen: Floats, emitted: Sequence[int] | Ints) -> None:
    """The value of the emitted token equals the listed one, else it is no better than the last listed.

    Args:
        ids: Listed tokens, (positions, k).
        logprobs: Their log-probabilities, (positions, k); NaN where censored.
        chosen: Log-probability of the emitted token, (positions,).
        emitted: Emitted tokens, (positions,).

    Raises:
        TraceError: It does not hold.
    """
    listed = ids == np.asarray(emitted)[:, None]
    value = np.where(listed, logprobs, 0.0).sum(axis=1)
    if np.isnan(value).any():
        raise TraceError("the value of an emitted token is censored", code="trace.censored")
    present = listed.any(axis=1)
    lowest = np.nan_to_num(logprobs, nan=np.inf).min(axis=1)
    wrong = present & (np.abs(value - chosen) > 1e-6)
    beyond = ~present & (chosen > lowest + 1e-6)
    if (wrong | beyond).any():
        raise TraceError("the value of an emitted token contradicts the listed ones", code="trace.contradiction")


def review_lists(logprobs: Sequence[Floats], policy: Policy) -> list[Finding]:
    """Say whether the lists of one clip are equally long, and as long and complete as asked; each (positions, k)."""
    lengths = sorted({values.shape[1] for values in logprobs})
    k, most = lengths[0], lengths[-1]
    censored = float(np.mean(np.concatenate([np.isnan(values).ravel() for values in logprobs])))
    findings = []
    if k != most:
        findings.append(broken("k.mixed", f"segments with k = {', '.join(map(str, lengths))}", "one k for the clip"))
    if most > MOST_K:
        findings.append(unclear("k.high", "provider", f"k = {most}", f"at most {MOST_K}"))
    if k < policy.least_k:
        findings.append(unclear("k.low", "provider", f"k = {k}", f"at least {policy.least_k}"))
    if censored > policy.max_censored_share:
        expected = f"at most {policy.max_censored_share:.1%}"
        findings.append(broken("trace.censored", f"{censored:.1%} of the values left out", expected))
    return findings
