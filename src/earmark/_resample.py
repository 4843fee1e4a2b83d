"""Resampling to 16 kHz that gives the same integers on every machine.

The filter is a Kaiser-windowed sinc held as integers with a unit gain of `2**23`. Its coefficients are made with
integer arithmetic and elementwise float64 ``+ - * /`` only: IEEE 754 rounds those correctly, so they agree
everywhere, while ``sin``, ``exp`` and the order of a sum do not. Samples are integers held in float64, and every
product and partial sum stays below `2**51`: a matrix product is exact in any order of summation, on any BLAS.

For an input rate ``rate`` let ``band = min(rate, 16000)``. The pass-band ends at ``7/16 band``, the stop-band
begins at ``band/2``. With ``16000 / rate = up / down`` in lowest terms, output ``j`` lies at input time
``j * down / up``; its fraction ``phase = j * down % up`` selects one row of coefficients.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

OUTPUT_RATE_HZ = 16_000
MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000
MAX_CHANNELS = 8
WIDE_FULL_SCALE = 1 << 23
"""Magnitude of the widest samples that enter the filter (24 bits)."""

UNIT_GAIN = 1 << 23
"""The coefficients of every phase sum to this: gain 1 at 0 Hz, exactly."""

_MAX_ABSOLUTE_SUM = 1 << 25
# 2**25 * 2**23 * 8 channels = 2**51: sums are exact (< 2**53), and so is rounding their quotient (`round_quotient`)
_TAPS_PER_BAND = 102  # least length with the attenuation stated in docs/explanation/canonical-audio.md
_KAISER_BETA = 10.0
_KAISER_TERMS = 36  # the next term of I0(10) is below 2**-60 of the sum
_SINE_TERMS = 12  # Taylor terms of sin(pi x), x <= 1/2: the next one is below 2**-60
_PI = 3.141592653589793
_COLUMNS = 32  # outputs per matrix product
_MIN_CYCLE = 256  # outputs per cycle, at least
_MAX_KEPT = 1 << 23  # coefficients (64 MiB) one resampler keeps; what exceeds it is made anew each time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The reduced ratio of the output to the input rate, and the length of the filter in input samples."""

    up: int
    down: int
    taps: int
    sine_step: tuple[int, int]

    @classmethod
    def of(cls, rate_hz: int) -> Ratio:
        """Return the ratio for an input rate in Hz."""
        divisor = math.gcd(OUTPUT_RATE_HZ, rate_hz)
        up, down = OUTPUT_RATE_HZ // divisor, rate_hz // divisor
        band = min(rate_hz, OUTPUT_RATE_HZ)
        half = -(-_TAPS_PER_BAND * rate_hz // (2 * band))
        # sin(pi * 2 * cutoff * n / (rate * up)) with the cutoff in the middle of the transition, 15/32 band
        return cls(up=up, down=down, taps=2 * half, sine_step=(15 * band, 16 * rate_hz * up))

    def output_length(self, samples: int) -> int:
        """Return ``ceil(samples * 16000 / rate)``."""
        return -(-samples * self.up // self.down)


def coefficients(ratio: Ratio, phases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the integer coefficients of some phases.

    Args:
        ratio: The conversion.
        phases: Fractions of an input sample in units of ``1 / ratio.up``, shape ``(n,)``, in ``[0, up)``.

    Returns:
        Shape ``(n, taps)``; column ``k`` weighs the input sample ``k + 1 - taps / 2`` after the output's own
        time rounded down. Every row sums to `UNIT_GAIN`.
    """
    half = ratio.taps // 2
    offsets = np.arange(1 - half, half + 1, dtype=np.int64) * ratio.up
    distance = phases.astype(np.int64)[:, None] - offsets  # in units of 1 / up input samples
    support = half * ratio.up
    shape = _sinc(distance * ratio.sine_step[0], ratio.sine_step[1]) * _kaiser(distance, support)
    shape[np.abs(distance) >= support] = 0.0
    fixed = np.rint(shape * float(1 << 28)).astype(np.int64)  # an integer sum has no order
    scaled: NDArray[np.int64] = np.rint(fixed / fixed.sum(axis=1, keepdims=True) * float(UNIT_GAIN)).astype(np.int64)
    nearest = half - 1 + (2 * phases > ratio.up)
    scaled[np.arange(len(phases)), nearest] += UNIT_GAIN - scaled.sum(axis=1)
    if int(np.abs(scaled).sum(axis=1).max()) > _MAX_ABSOLUTE_SUM:  # pragma: no cover - excluded by the design
        raise ArithmeticError("a resampling filter breaks the bound of exact arithmetic")
    return scaled


def _sinc(numerator: NDArray[np.int64], denominator: int) -> FloatArray:
    """Return ``sin(pi a) / (pi a)`` for ``a = numerator / denominator``, reduced as integers."""
    turn = np.abs(numerator) % (2 * denominator)
    sign = np.where(turn > denominator, -1.0, 1.0)
    turn = np.where(turn > denominator, turn - denominator, turn)
    turn = np.minimum(turn, denominator - turn)  # sin(pi - x) = sin(x)
    angle = turn / float(denominator) * _PI
    square = angle * angle
    series = np.ones_like(angle)
    for term in range(_SINE_TERMS, 0, -1):
        series = 1.0 - series * square / float(2 * term * (2 * term + 1))
    argument = np.abs(numerator) / float(denominator) * _PI
    argument[numerator == 0] = 1.0
    quotient: FloatArray = sign * angle * series / argument
    quotient[numerator == 0] = 1.0
    return quotient


def _kaiser(distance: NDArray[np.int64], support: int) -> FloatArray:
    """Return the Kaiser window (not normalised) at ``distance / support``, by the power series of I0."""
    remaining = np.maximum(support * support - distance * distance, 0)  # below 2**53: exact as float64
    quarter = remaining / float(support * support) * (_KAISER_BETA * _KAISER_BETA / 4.0)
    series: FloatArray = np.ones_like(quarter)
    for term in range(_KAISER_TERMS, 0, -1):
        series = 1.0 + series * quarter / float(term * term)
    return series


def coefficient_digest(rate_hz: int) -> str:
    """Return the SHA-256 of all coefficients for a rate: phases in order, int32 little-endian."""
    ratio = Ratio.of(rate_hz)
    state = hashlib.sha256()
    for start in range(0, ratio.up, 256):
        phases = np.arange(start, min(start + 256, ratio.up), dtype=np.int64)
        state.update(coefficients(ratio, phases).astype("<i4").tobytes())
    return state.hexdigest()


def round_quotient(sums: FloatArray, divisor: int) -> NDArray[np.int16]:
    """Round ``sums / divisor`` to the nearest int16, halves to even, saturating.

    Both are integers and ``|sums| <= 2**51``. The float64 quotient errs by ``|sums| / divisor * 2**-53`` at most,
    which is ``1 / (4 divisor)``; a quotient that is not a half-integer is at least ``1 / (2 divisor)`` away from
    one. So the rounding is that of the exact fraction.
    """
    rounded = np.rint(sums / float(divisor))
    return np.clip(rounded, -32768.0, 32767.0).astype(np.int16)


class _Bank:
    """Matrices that turn a window of input samples into consecutive outputs of one cycle."""

    def __init__(self, rate_hz: int) -> None:
        self.ratio = Ratio.of(rate_hz)
        repeats = -(-_MIN_CYCLE // self.ratio.up)
        self.outputs = self.ratio.up * repeats
        self.inputs = self.ratio.down * repeats
        self.small = self.outputs * self.ratio.taps <= _MAX_KEPT // 8
        self._kept: dict[int, FloatArray] = {}
        self._kept_size = 0

    def first_sample(self, output: int) -> int:
        """Return the first input sample (of the padded cycle) that an output weighs."""
        return output * self.ratio.down // self.ratio.up

    def matrix(self, start: int) -> FloatArray:
        """Return the matrix for the outputs from ``start``, shape ``(span, at most _COLUMNS)``."""
        matrix = self._kept.get(start)
        if matrix is None:
            matrix = self._make(start)
            if self._kept_size + matrix.size <= _MAX_KEPT:
                self._kept[start] = matrix
                self._kept_size += matrix.size
        return matrix

    def _make(self, start: int) -> FloatArray:
        ratio = self.ratio
        times = np.arange(start, min(start + _COLUMNS, self.outputs), dtype=np.int64) * ratio.down
        rows = coefficients(ratio, times % ratio.up)
        first = times // ratio.up - times[0] // ratio.up
        matrix = np.zeros((int(first[-1]) + ratio.taps, len(times)))
        for column, (row, offset) in enumerate(zip(rows, first, strict=True)):
            matrix[offset : offset + ratio.taps, column] = row
        return matrix


_small_bank = lru_cache(maxsize=16)(_Bank)


def _bank(rate_hz: int) -> _Bank:
    """Return a bank: shared for the usual rates, a fresh one where the matrices are large."""
    bank = _small_bank(rate_hz)
    return bank if bank.small else _Bank(rate_hz)


class Resampler:
    """Turns blocks of mono integer samples into int16 at 16 kHz; the blocks' sizes do not matter.

    Args:
        rate_hz: Rate of the input.
        divisor: What the samples are divided by on output besides the filter's gain (channels times 2**8 for
            24-bit samples).

    Example:
        >>> resampler = Resampler(16_000, divisor=2)
        >>> resampler.push(np.array([1.0, 3.0, 8.0])).tolist()  # halves go to the even neighbour
        [0, 2, 4]
    """

    def __init__(self, rate_hz: int, divisor: int) -> None:
        self._divisor = divisor if rate_hz == OUTPUT_RATE_HZ else divisor * UNIT_GAIN
        self._bank = None if rate_hz == OUTPUT_RATE_HZ else _bank(rate_hz)
        self._taken = self._given = 0
        self._buffer = np.zeros(0 if self._bank is None else self._bank.ratio.taps // 2 - 1)

    def push(self, block: FloatArray) -> NDArray[np.int16]:
        """Take samples ``(n,)`` and return the outputs that are complete."""
        if self._bank is None:
            return round_quotient(block, self._divisor)
        self._taken += len(block)
        self._buffer = np.concatenate((self._buffer, block))
        cycles = max(len(self._buffer) - self._bank.ratio.taps, 0) // self._bank.inputs
        return self._filter(self._bank, cycles, cycles * self._bank.outputs)

    def finish(self) -> NDArray[np.int16]:
        """Return the remaining outputs; the samples after the end count as zeros."""
        if self._bank is None:
            return np.zeros(0, np.int16)
        wanted = self._bank.ratio.output_length(self._taken) - self._given
        cycles = -(-wanted // self._bank.outputs)
        missing = cycles * self._bank.inputs + self._bank.ratio.taps - len(self._buffer)
        self._buffer = np.concatenate((self._buffer, np.zeros(max(missing, 0))))
        return self._filter(self._bank, cycles, wanted)

    def _filter(self, bank: _Bank, cycles: int, wanted: int) -> NDArray[np.int16]:
        """Filter whole cycles from the head of the buffer and return the first ``wanted`` outputs."""
        if not wanted:
            return np.zeros(0, np.int16)
        width = bank.inputs + bank.ratio.taps
        view = np.lib.stride_tricks.sliding_window_view(self._buffer, width)[:: bank.inputs][:cycles]
        windows = np.ascontiguousarray(view)
        sums = np.empty((cycles, bank.outputs))
        for start in range(0, min(bank.outputs, wanted), _COLUMNS):
            matrix = bank.matrix(start)
            first = bank.first_sample(start)
            sums[:, start : start + matrix.shape[1]] = windows[:, first : first + len(matrix)] @ matrix
        self._buffer = self._buffer[cycles * bank.inputs :].copy()
        self._given += wanted
        return round_quotient(sums.reshape(-1)[:wanted], self._divisor)


def resample_blocks(blocks: Iterator[FloatArray], rate_hz: int, divisor: int) -> Iterator[NDArray[np.int16]]:
    """Yield the int16 samples of a stream of mono blocks."""
    resampler = Resampler(rate_hz, divisor)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()
