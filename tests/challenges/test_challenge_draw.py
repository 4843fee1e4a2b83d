"""Exact mixing, words, and fresh clips that follow from a seed."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import challenges as ch
from earmark.challenges import drawing, synthesis
from earmark.challenges.casting import FLITE_VOICES, VARIANTS
from earmark.challenges.grammars import GRAMMARS
from earmark.challenges.mixing import NOISE_RMS, UNIT_GAIN, Layer, level_gain, make_noise, mix, noise_gain
from earmark.challenges.numbers import french, german, spanish
from earmark.challenges.text import Dice, held_out_sentence, is_test
from earmark.errors import UsageError

# Exact mixing


def _slow_mix(layers, clips):
    """Mix one sample at a time, in Python's own integers."""
    length = max(layer.offset + (layer.samples or len(clips[layer.clip]) - layer.start) for layer in layers)
    total = [0] * length
    for layer in layers:
        part = clips[layer.clip][layer.start :]
        for i, value in enumerate(part[: layer.samples or None]):
            total[layer.offset + i] += int(value) * layer.gain
    return [max(-32768, min(32767, (value + 2048) // 4096)) for value in total]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-32768, 32767), min_size=3, max_size=30),
    st.lists(
        st.tuples(st.integers(1, 1 << 20), st.integers(0, 40), st.integers(0, 2), st.integers(0, 1)),
        min_size=1,
        max_size=5,
    ),
)
def test_mixing_is_exact_rounded_once_and_saturated(values, drawn):
    clips = {"a": np.array(values, np.int16)}
    layers = [Layer(clip="a", gain=g, offset=o, start=s, samples=n) for g, o, s, n in drawn]
    assert mix(layers, clips.__getitem__).tolist() == _slow_mix(layers, clips)


def test_mixing_has_bounds():
    clip = np.ones(10, np.int16)
    for layers in ([], [Layer(clip="a")] * 257, [Layer(clip="a", start=9, samples=2)], [Layer(clip="a", start=10)]):
        with pytest.raises(UsageError):
            mix(layers, lambda _: clip)
    with pytest.raises(UsageError, match="at most"):
        mix([Layer(clip="a", offset=600 * 16_000)], lambda _: clip)
    with pytest.raises(ValueError, match="either a clip or a kind of noise"):
        Layer(clip="a", noise="white", samples=3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("white", "7a21b736de092c81"), ("pink", "5b761581c3a9062f")],
)
def test_noise_is_the_same_everywhere_and_has_its_colour(kind, expected):
    noise = make_noise(kind, 7, 160_000)
    assert hashlib.sha256(noise[:1000].astype("<i2").tobytes()).hexdigest()[:16] == expected
    assert np.array_equal(make_noise(kind, 7, 5000), noise[:5000])
    assert not np.array_equal(make_noise(kind, 8, 5000), noise[:5000])
    wide = noise.astype(np.float64)
    assert np.sqrt(np.mean(wide**2)) == pytest.approx(NOISE_RMS, rel=0.1)
    power = np.abs(np.fft.rfft(wide)) ** 2
    octaves = [power[10 * f : 20 * f].mean() for f in (100, 200, 400, 800, 1600, 3200)]
    slope_db = 10 * np.log10(octaves[-1] / octaves[0]) / 5
    assert slope_db == pytest.approx(0.0 if kind == "white" else -3.0, abs=0.5)


@pytest.mark.parametrize("snr_db", [-5, 0, 10, 30])
def test_noise_lies_where_it_is_asked_for(snr_db):
    speech = make_noise("pink", 1, 80_000) * 4
    noise = make_noise("white", 2, 80_000).astype(np.float64) * noise_gain(speech, snr_db) / UNIT_GAIN
    found = 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(noise**2))
    assert found == pytest.approx(snr_db, abs=0.1)
    assert level_gain(speech, np.zeros(10, np.int16), 60) == 1 << 20  # silence cannot be made loud


# Words


def test_dice_are_fixed_and_fair():
    dice = Dice("golden", 1, b"x")
    assert [dice.randrange(1000) for _ in range(4)] == [9, 699, 916, 961]
    counts = np.bincount([dice.randrange(7) for _ in range(7000)], minlength=7)
    assert ((counts - 1000) ** 2 / 1000).sum() < 22.5  # chi-square, 6 degrees of freedom, p = 0.001
    assert sorted(dice.shuffled("abcd")) == list("abcd")
    assert Dice("a", "bc").randrange(1 << 60) != Dice("ab", "c").randrange(1 << 60)
    with pytest.raises(UsageError, match="nothing to choose from"):
        dice.randrange(0)


def test_numbers_follow_the_rules_of_each_language():
    known = {
        german: {1: "eins", 21: "einundzwanzig", 101: "einhunderteins", 1999: "eintausendneunhundertneunundneunzig"},
        french: {
            71: "soixante et onze",
            80: "quatre-vingts",
            81: "quatre-vingt-un",
            200: "deux cents",
            1001: "mille un",
        },
        spanish: {16: "dieciséis", 31: "treinta y uno", 100: "cien", 555: "quinientos cincuenta y cinco", 1000: "mil"},
    }
    for spell, pairs in known.items():
        assert {value: spell(value) for value in pairs} == pairs


@pytest.mark.parametrize("language", GRAMMARS)
def test_grammars_fill_every_slot_and_give_many_sentences(language):
    grammar = GRAMMARS[language]
    for kind in (grammar.templates, grammar.rare, grammar.confusable):
        said = {held_out_sentence(grammar, Dice(language, i), kind) for i in range(40)}
        assert len(said) > 20
        assert all("{" not in text and is_test(text) for text in said)


# Fresh clips


def test_a_seed_gives_one_set_and_another_seed_none_of_it(tmp_path, need):
    need("espeak")
    digests = {}
    for name, seed in (("a", "0xFFEE01"), ("b", "ffee01"), ("c", "ffee02")):
        rows = drawing.draw(drawing.make_drawing(seed, seconds=6), 6, tmp_path / name, processes=1)
        digests[name] = [row.digest for row in rows]
        assert ch.load(tmp_path / name).check() == []
        assert all(row.duration <= 6 for row in rows)
    assert digests["a"] == digests["b"]
    assert not set(digests["a"]) & set(digests["c"])
    assert not (tmp_path / "a" / ".unfinished").exists()


def test_a_clip_does_not_depend_on_how_many_are_drawn(need):
    need("espeak")
    made = drawing.make_drawing("beef", languages=["de"])
    (row, clip), (again, _) = drawing.draw_clip(made, 3), drawing.draw_clip(made, 3)
    assert row == again
    assert row.language == "de"
    assert clip.digest == row.digest
    assert row.digest.startswith("118ede33cd4ac9956cd5d061")


def test_an_interrupted_drawing_goes_on(tmp_path, monkeypatch, need):
    need("espeak")
    made, out = drawing.make_drawing("c0de", seconds=5, languages=["en"]), tmp_path / "set"
    monkeypatch.setattr(drawing, "CHUNK_CLIPS", 2)
    real, calls = drawing.draw_clip, []

    def counted(what, number):
        calls.append(number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(what, number)

    monkeypatch.setattr(drawing, "draw_clip", counted)
    with pytest.raises(KeyboardInterrupt):
        drawing.draw(made, 5, out, processes=1)
    assert not (out / "manifest.jsonl").exists()
    with pytest.raises(UsageError, match="another drawing"):
        drawing.draw(drawing.make_drawing("c0df", seconds=5, languages=["en"]), 5, out, processes=1)
    rows = drawing.draw(made, 5, out, processes=1)
    assert calls == [0, 1, 2, 3, 2, 3, 4]
    assert [row.id for row in rows] == [f"{i:06d}" for i in range(5)]
    with pytest.raises(UsageError, match="not empty"):
        drawing.draw(made, 5, out, processes=1)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": ""},
        {"seed": "xyz"},
        {"seconds": 0.5},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"languages": ["tlh"]},
    ],
)
def test_what_cannot_be_drawn_is_refused(options, need):
    need("espeak")
    with pytest.raises(UsageError):
        drawing.make_drawing(**{"seed": "00", **options})


def test_draw_and_calibration_write_sets(run, tmp_path, need):
    need("espeak", "flite")
    code, out, _ = run("draw", "--seed", "AB", "--n", 2, "--seconds", 5, "--out", tmp_path / "d", "--json")
    assert code == 0
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["000000", "000001"]
    code, out, _ = run("build", "--calibration", 60, "--out", tmp_path / "c", "--processes", 2)
    assert code == 0
    assert out.startswith("60 clips")
    loaded = ch.load(tmp_path / "c")
    assert loaded.check() == []
    assert {clip.row.language for clip in loaded} == {"en"}
    assert len({clip.row.digest for clip in loaded}) == 60
    code, _, err = run("draw", "--seed", "zz", "--out", tmp_path / "e")
    assert (code, "clips cannot be drawn so" in err) == (3, True)


def test_the_processor_does_not_change_what_is_said(need, monkeypatch):
    need("espeak", "flite")
    voices = [synthesis.Voice(engine="espeak", name=f"{a}+{v}") for a in ("en-029", "de") for v in VARIANTS[::9]]
    voices += [synthesis.Voice(engine="flite", name=name, pitch=41, rate=1.03) for name in FLITE_VOICES]
    plain = [synthesis.say("four hundred and two", voice).digest for voice in voices]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-SSE4_2")  # older instructions
    assert [synthesis.say("four hundred and two", voice).digest for voice in voices] == plain
    assert len(set(plain)) > len(voices) // 2
