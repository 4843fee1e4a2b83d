"""The resampler against exact arithmetic, against its specification, and beside scipy and soxr."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark._resample import (
    MAX_CHANNELS,
    UNIT_GAIN,
    WIDE_FULL_SCALE,
    Ratio,
    Resampler,
    coefficient_digest,
    coefficients,
    resample_blocks,
    round_quotient,
)
from earmark.audio import from_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

USUAL_RATES_HZ = (
    8_000,
    11_025,
    12_000,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    88_200,
    96_000,
    192_000,
)
ODD_RATES_HZ = (4_001, 15_999, 16_001, 44_056)

COEFFICIENT_DIGESTS = {
    8_000: "f34e7fbefe2698106f7e79619aada4773e13e7e448022e564c016abe5548b01d",
    11_025: "9334c1649ea1e825cf3fe18993725ae353ae2fc59cecad4e5a2b264c4ae7953a",
    12_000: "030011c1be99f5a967b80e602c5b32f1fec503374f36143aac4542bf3ee86479",
    16_000: "a78cac100c9627d67bdcba817e63a6fb94117488c3559d928461d676f5d17263",
    22_050: "ae717db6c3bd5ff9a400abfb59a7d770c37fdd0417349ace1412c02710c9dabd",
    24_000: "1b5e6bb989b0ad0d81d7f635811cc6ab434eedc52d1a6b8018b390860a10ba1a",
    32_000: "e2e8d2df67d9d193c768148313db662a414e96767143cedfe2e15c7c3483b3f2",
    44_100: "e37e177bde29f749511f578107848339b9416ab7423d717ab29a1cba3f29ac37",
    48_000: "576b04048f78eeee1b6ac63db5d0427092838e4f4939dce00ea6a7303ccd27f8",
    88_200: "d51076a222e7f81c8f32bccbca0e73415dee1c9f873b132219b1f483f2eece76",
    96_000: "9e7aab6ba25ddcec72e3f2e921057e523c7a7d284abe7f018e63a970f8bb7cd5",
    192_000: "93475a63344903fd5ae2641da1338f3033c5f1684b6e44209a90c334f52dbf0b",
}


def all_coefficients(ratio: Ratio) -> NDArray[np.int64]:
    """Return every phase."""
    return coefficients(ratio, np.arange(ratio.up, dtype=np.int64))


def prototype(ratio: Ratio) -> NDArray[np.float64]:
    """Return the filter on the grid of `up` times the input rate, from its phases."""
    rows, half = all_coefficients(ratio), ratio.taps // 2
    taps = np.zeros(ratio.up * ratio.taps)
    for phase, row in enumerate(rows):
        taps[phase - (np.arange(ratio.taps) + 1 - half) * ratio.up + half * ratio.up - 1] = row
    return taps / UNIT_GAIN / ratio.up


def exact(samples: list[int], rate_hz: int, divisor: int) -> list[int]:
    """Resample in Python integers, one output at a time, straight from the definition."""
    ratio = Ratio.of(rate_hz)
    rows, half = all_coefficients(ratio).tolist(), ratio.taps // 2
    result = []
    for output in range(ratio.output_length(len(samples))):
        time, phase = divmod(output * ratio.down, ratio.up)
        first = time + 1 - half
        pairs = ((first + k, row) for k, row in enumerate(rows[phase]))
        total = sum(row * samples[place] for place, row in pairs if 0 <= place < len(samples))
        result.append(max(-32768, min(32767, round(Fraction(total, UNIT_GAIN * divisor)))))  # round: halves to even
    return result


def run(samples: NDArray[np.float64], rate_hz: int, divisor: int = 1) -> NDArray[np.int16]:
    """Resample at once."""
    return np.concatenate(list(resample_blocks(iter([samples]), rate_hz, divisor)))


def noise(seed: int, count: int, limit: int = 32_768) -> NDArray[np.float64]:
    """Return white integer noise."""
    return np.random.default_rng(seed).integers(-limit, limit, count).astype(np.float64)


@pytest.mark.parametrize("rate_hz", USUAL_RATES_HZ)
def test_coefficients_are_pinned(rate_hz: int) -> None:
    """No machine and no library version may change a coefficient."""
    assert coefficient_digest(rate_hz) == COEFFICIENT_DIGESTS[rate_hz]


@pytest.mark.parametrize("rate_hz", [r for r in USUAL_RATES_HZ if r != 16_000])
def test_pass_band_and_stop_band(rate_hz: int) -> None:
    """Ripple at most 0.05 dB up to 7/16 of the band, at least 96 dB of attenuation from half of it."""
    ratio = Ratio.of(rate_hz)
    taps = prototype(ratio)
    response = np.abs(np.fft.rfft(taps, 16 * 2 ** int(np.ceil(np.log2(len(taps))))))
    frequency_hz = np.linspace(0, rate_hz * ratio.up / 2, len(response))
    band_hz = min(rate_hz, 16_000)
    passed = response[frequency_hz <= band_hz * 7 / 16]
    stopped = response[frequency_hz >= band_hz / 2]
    assert np.abs(20 * np.log10(passed)).max() < 0.05
    assert 20 * np.log10(stopped.max()) < -96


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 44_056])
def test_coefficients_agree_with_scipy(rate_hz: int) -> None:
    """The libm-free sinc and window are those of numpy and scipy, to one unit."""
    special = pytest.importorskip("scipy.special")
    ratio = Ratio.of(rate_hz)
    phases = np.unique(np.linspace(0, ratio.up - 1, 50).astype(np.int64))
    half = ratio.taps // 2
    time = phases[:, None] / ratio.up - np.arange(1 - half, half + 1)
    window = special.i0(10.0 * np.sqrt(np.maximum(0, 1 - (time / half) ** 2))) * (np.abs(time) < half)
    shape = np.sinc(15 / 16 * min(rate_hz, 16_000) / rate_hz * time) * window
    expected = np.rint(shape / shape.sum(axis=1, keepdims=True) * UNIT_GAIN)
    found = coefficients(ratio, phases)
    difference = np.sort(np.abs(found - expected), axis=1)
    assert difference[:, :-1].max() <= 1
    assert difference.max() < ratio.taps / 2  # the nearest tap takes up the rounding of all


@pytest.mark.parametrize("rate_hz", [*USUAL_RATES_HZ[:-1], *ODD_RATES_HZ, 384_000])
def test_sums_stay_exact(rate_hz: int) -> None:
    """The greatest sum that can occur lies below 2**51, where products and the final rounding are exact."""
    ratio = Ratio.of(rate_hz)
    rows = coefficients(ratio, np.arange(0, ratio.up, max(1, ratio.up // 500), dtype=np.int64))
    assert (rows.sum(axis=1) == UNIT_GAIN).all()
    assert int(np.abs(rows).sum(axis=1).max()) * WIDE_FULL_SCALE * MAX_CHANNELS < 2**51


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    rate_hz=st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000, 96_000]),
    channels=st.integers(1, MAX_CHANNELS),
    wide=st.booleans(),
)
def test_equals_python_integers(seed: int, count: int, rate_hz: int, channels: int, wide: bool) -> None:
    """Matrix products give what Python's integers and fractions give, full-scale 24-bit samples included."""
    limit = channels * (WIDE_FULL_SCALE if wide else 32_768)
    samples = noise(seed, count, limit)
    divisor = channels * (256 if wide else 1)
    assert run(samples, rate_hz, divisor).tolist() == exact([int(x) for x in samples], rate_hz, divisor)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 5_000), min_size=1, max_size=12),
    rate_hz=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 44_056]),
)
def test_blocks_do_not_matter(seed: int, sizes: list[int], rate_hz: int) -> None:
    """A stream in blocks of any sizes gives the samples of one block."""
    samples = noise(seed, sum(sizes))
    blocks = np.split(samples, np.cumsum(sizes)[:-1])
    streamed = np.concatenate(list(resample_blocks(iter(blocks), rate_hz, 1)))
    assert np.array_equal(streamed, run(samples, rate_hz))
    assert len(streamed) == -(-sum(sizes) * 16_000 // rate_hz)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cycles=st.integers(1, 3), rate_hz=st.sampled_from(USUAL_RATES_HZ))
def test_shift_by_a_cycle(seed: int, cycles: int, rate_hz: int) -> None:
    """`down` samples of silence before the input put exactly `up` before the output."""
    ratio = Ratio.of(rate_hz)
    samples = noise(seed, 3_000)
    plain = run(samples, rate_hz)
    later = run(np.concatenate((np.zeros(cycles * ratio.down), samples)), rate_hz)[cycles * ratio.up :]
    # the filter rings before the first sample: those outputs have no place in the plain result
    assert np.array_equal(later[: len(plain)], plain)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate_hz=st.sampled_from(USUAL_RATES_HZ))
def test_linear_up_to_rounding(seed: int, rate_hz: int) -> None:
    """The sum of two outputs is the output of the sum to within the three roundings; negation is exact."""
    one, other = noise(seed, 2_000, 6_000), noise(seed + 1, 2_000, 6_000)
    apart = run(one, rate_hz).astype(int) + run(other, rate_hz)
    assert np.abs(run(one + other, rate_hz) - apart).max() <= 1
    assert np.array_equal(run(-one, rate_hz), -run(one, rate_hz))


@pytest.mark.parametrize("rate_hz", [*USUAL_RATES_HZ, *ODD_RATES_HZ])
@pytest.mark.parametrize("level", [0, 1, -32_768, 32_767])
def test_constant_has_gain_one(rate_hz: int, level: int) -> None:
    """Away from the edges a constant comes out as it went in."""
    count = 4_000 + 3 * Ratio.of(rate_hz).taps
    result = run(np.full(count, float(level)), rate_hz)
    edge = 104 + 104 * 16_000 // rate_hz
    assert set(result[edge:-edge].tolist()) == {level}


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_full_scale_saturates(rate_hz: int) -> None:
    """The overshoot of a full-scale square wave is cut at the ends of int16 and never wraps."""
    square = np.where(np.arange(6_000) // 300 % 2, 32_767.0, -32_768.0)
    result, half = run(square, rate_hz), run(np.trunc(square / 2), rate_hz)
    assert result.max() == 32_767
    assert result.min() == -32_768
    assert np.abs(half[np.abs(result.astype(int)) > 30_000]).min() > 14_000
    assert (np.sign(result)[np.abs(half) > 100] == np.sign(half)[np.abs(half) > 100]).all()


def test_round_quotient_is_exact() -> None:
    """Quotients beside a half round as the exact fraction does, up to the bound."""
    for divisor in (3, 5 * UNIT_GAIN, 7 * 256 * UNIT_GAIN, 8 * 256 * UNIT_GAIN):
        numerators = [n * divisor // 2 + d for n in (-65_535, -3, -1, 0, 1, 3, 5, 8_191, 65_533) for d in (-1, 0, 1)]
        numerators = [n for n in numerators if abs(n) <= 2**51]
        expected = [max(-32768, min(32767, round(Fraction(n, divisor)))) for n in numerators]
        assert round_quotient(np.array(numerators, np.float64), divisor).tolist() == expected


def test_large_tables_stay_bounded() -> None:
    """A rate prime to 16 kHz has 16 000 phases of 2 448 taps; only a part of the matrices is kept."""
    resampler = Resampler(383_999, 1)
    resampler.push(noise(1, 3_000))
    assert len(resampler.finish()) == 126
    bank = resampler._bank
    assert bank is not None
    assert (bank.outputs, bank.small) == (16_000, False)
    bank._kept_size = 1 << 23
    bank.matrix(320)
    assert 320 not in bank._kept


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_tones_beside_soxr(rate_hz: int) -> None:
    """Tones of the pass-band come out within one unit of the ideal, and no farther from it than soxr's."""
    soxr = pytest.importorskip("soxr", reason="soxr is the yardstick of the extra `corpora`")
    before, after = np.arange(rate_hz) / rate_hz, np.arange(16_000) / 16_000
    for frequency_hz in (110.0, 997.0, 3_301.0, 6_007.0, 6_889.0):
        if frequency_hz < rate_hz * 7 / 16:
            wave, ideal = (
                0.75 * np.sin(2 * np.pi * frequency_hz * t) * np.sin(np.pi * t) ** 2 for t in (before, after)
            )
            ours = np.abs(from_samples(wave, rate_hz).samples - ideal * 32_768).max()
            theirs = np.abs(np.rint(soxr.resample(wave, rate_hz, 16_000, "HQ") * 32_768) - ideal * 32_768).max()
            assert ours < 1
            assert ours < theirs + 0.25  # both carry a rounding of up to 0.5


@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("frequency_hz", [8_100.0, 9_000.0, 10_500.0])
def test_tones_above_the_band_vanish(rate_hz: int, frequency_hz: float) -> None:
    """A full-scale tone above 8 kHz leaves at most one unit, where decimation alone would leave an alias."""
    time = np.arange(rate_hz) / rate_hz
    wave = 0.999 * np.sin(2 * np.pi * frequency_hz * time) * np.sin(np.pi * time) ** 2
    assert np.abs(from_samples(wave, rate_hz).samples).max() <= 1
