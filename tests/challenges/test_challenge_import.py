"""Taking other corpora in: each format, each fault by its line, and the libraries of the formats as judges."""

from __future__ import annotations

import gzip
import hashlib
import json
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earmark import audio, challenges
from earmark.challenges.importing import detect, import_clips
from earmark.cli import main
from earmark.errors import UsageError


def _tone(path: Path, seconds: float = 1.0, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> None:
    time = np.arange(round(seconds * rate)) / rate
    frames = np.stack([np.sin(2 * np.pi * hertz * (c + 1) * time) * 9000 for c in range(channels)], axis=1)
    soundfile.write(path, frames.astype(np.int16), rate)


def _write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three recordings."""
    _tone(tmp_path / "a.wav", 1.0)
    _tone(tmp_path / "b.flac", 2.0, rate=44_100)
    _tone(tmp_path / "two.wav", 3.0, rate=8_000, channels=2)
    return tmp_path


# NeMo


def test_nemo_manifests_come_in(folder):
    rows = [
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "  one   tone ", "lang": "en"},
        {"audio_filepath": str(folder / "b.flac"), "duration": 0.5, "offset": 1.25, "text": "a part"},
        {"audio_filepath": "two.wav", "duration": 3, "text": "zwei", "language": "de"},
    ]
    made, problems = import_clips(_write(folder / "m.jsonl", rows), folder / "out", language="fr", category="noisy")
    assert problems == []
    assert [(r.text, r.language, r.category) for r in made] == [
        ("one tone", "en", "noisy"),
        ("a part", "fr", "noisy"),
        ("zwei", "de", "noisy"),
    ]
    loaded = challenges.load(folder / "out")
    assert loaded.check() == []
    assert loaded.clips[0].audio() == audio.load(folder / "a.wav")
    frames, rate = soundfile.read(folder / "b.flac", dtype="int16")
    start, count = 55_125, 22_050
    assert loaded.clips[1].audio() == audio.from_samples(frames[start : start + count], rate)
    assert loaded.clips[2].audio() == audio.load(folder / "two.wav")


def test_faulty_lines_are_named_and_the_others_come_in(folder):
    good = {"audio_filepath": "a.wav", "duration": 1.0, "text": "fine"}
    (folder / "noise.wav").write_bytes(b"RIFF....WAVE")
    digest = audio.load(folder / "a.wav").digest
    sha256 = hashlib.sha256((folder / "a.wav").read_bytes()).hexdigest()
    faults = [
        ({"audio_filepath": "none.wav"}, "no such audio file"),
        ({"audio_filepath": "noise.wav"}, "not a sound file"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"duration": 7.0}, "duration is 7.0 s by the manifest, the audio lasts 1.000 s"),
        ({"duration": "long"}, "expected a number"),
        ({"text": " "}, "transcript is empty"),
        ({"text": None}, "no transcript"),
        ({"text": 3}, "text is int"),
        ({"offset": 0.9, "duration": 0.5}, "the file lasts 1.000 s"),
        ({"offset": -1}, "offset is -1"),
        ({"digest": "0" * 64}, "expected 0000000000000000"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"audio_filepath": "\0"}, "a"),
        ({"lang": "x y"}, "language"),
    ]
    rows = [good, *({**good, **change} for change, _ in faults), {**good, "digest": digest, "sha256": sha256}]
    _write(folder / "m.json", rows)
    with (folder / "m.json").open("a") as file:
        file.write("{]\n\n" + "[" * 9000 + "\n")
    made, problems = import_clips(folder / "m.json", folder / "out")
    assert len(made) == 2
    assert [p.line for p in problems[: len(faults)]] == list(range(2, len(faults) + 2))
    for problem, (_, message) in zip(problems, faults, strict=False):
        assert message in problem.message
    assert [p.line for p in problems[len(faults) :]] == [len(rows) + 1, len(rows) + 3]
    assert len(challenges.load(folder / "out")) == 2


# lhotse


def _cut(number: int, source: str, **changes) -> dict:
    """Return a cut as lhotse writes it."""
    return {
        "id": f"cut-{number}",
        "start": 0.0,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [
            {
                "id": "s",
                "recording_id": "r",
                "start": 0.0,
                "duration": 1.0,
                "channel": 0,
                "text": "ja",
                "language": "de",
            }
        ],
        "recording": {
            "id": "r",
            "sources": [{"type": "file", "channels": [0], "source": source}],
            "sampling_rate": 16_000,
            "num_samples": 16_000,
            "duration": 1.0,
            "channel_ids": [0],
        },
        "type": "MonoCut",
        **changes,
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lhotse_cuts_come_in(folder, suffix):
    said = [{"start": 1.0, "text": "second"}, {"start": 0.0, "text": "first", "language": "en"}]
    cuts = [_cut(0, "a.wav"), _cut(1, "two.wav", start=0.125, duration=2.0, channel=1, supervisions=said)]
    data = "".join(json.dumps(cut) + "\n" for cut in cuts).encode()
    path = folder / f"cuts{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert detect(path) == "lhotse"
    made, problems = import_clips(path, folder / "out")
    assert problems == []
    assert [(row.text, row.id) for row in made] == [("ja", "000000-cut-0"), ("first second", "000001-cut-1")]
    loaded = challenges.load(folder / "out")
    frames, _ = soundfile.read(folder / "two.wav", dtype="int16")
    assert loaded.clips[1].audio() == audio.from_samples(frames[1_000:17_000, 1], 8_000)


def test_lhotse_cuts_that_need_more_than_reading_are_named(folder):
    command = {"id": "r", "sources": [{"type": "command", "channels": [0], "source": "touch hacked"}]}
    cuts = [
        _cut(0, "a.wav"),
        _cut(1, "a.wav", recording=command),
        _cut(2, "a.wav", type="MixedCut", tracks=[]),
        _cut(3, "a.wav", recording=None),
        _cut(4, "a.wav", channel=[0, 1]),
        _cut(5, "a.wav", channel=3),
        _cut(6, "a.wav", duration=float("nan")),
        _cut(7, "a.wav", start=0.5, duration=1.0),
        _cut(8, "a.wav", supervisions=[]),
        _cut(9, "a.wav", supervisions=["x"]),
        _cut(10, "a.wav", custom=7),
    ]
    made, problems = import_clips(_write(folder / "cuts.jsonl", cuts), folder / "out")
    assert len(made) == 1
    assert [p.line for p in problems] == list(range(2, 12))
    assert "expected 'file'" in problems[0].message
    assert not list(folder.rglob("hacked"))


def test_lhotse_itself_reads_the_same_cuts(folder):
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed; it judges the reading of its cuts")
    recording = lhotse.Recording.from_file(folder / "two.wav")
    said = lhotse.SupervisionSegment(id="s", recording_id=recording.id, start=0, duration=3, channel=0, text="hello")
    whole = lhotse.MonoCut(
        id="w", start=0, duration=recording.duration, channel=0, recording=recording, supervisions=[said]
    )
    cuts = lhotse.CutSet.from_cuts([whole, whole.truncate(offset=0.7, duration=1.3).with_id("part")])
    cuts.to_file(folder / "cuts.jsonl.gz")
    made, problems = import_clips(folder / "cuts.jsonl.gz", folder / "out")
    assert problems == []
    loaded = challenges.load(folder / "out")
    for cut, clip, row in zip(cuts, loaded, made, strict=True):
        theirs = (cut.load_audio()[0] * 32768).round().astype(np.int16)
        assert clip.audio() == audio.from_samples(theirs, cut.sampling_rate)
        assert row.text == "hello"


# Hugging Face


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_audiofolder_comes_in(folder, kind):
    (folder / "train").mkdir()
    (folder / "a.wav").rename(folder / "train" / "a.wav")
    rows = [
        {"file_name": "a.wav", "transcription": "one, two"},
        {"file_name": "none.wav", "transcription": "three"},
        {"file_name": "a.wav", "transcription": ""},
    ]
    if kind == "jsonl":
        _write(folder / "train" / "metadata.jsonl", rows)
    else:
        lines = ["file_name,transcription", 'a.wav,"one, two"', "none.wav,three", "a.wav,"]
        (folder / "train" / "metadata.csv").write_text("\n".join(lines) + "\n")
    made, problems = import_clips(folder, folder / "out")
    first = 2 if kind == "csv" else 1
    assert [row.text for row in made] == ["one, two"]
    assert [p.line for p in problems] == [first + 1, first + 2]


def _table(folder: Path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra corpora)")
    data = (folder / "b.flac").read_bytes()
    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    held = [{"bytes": data, "path": "b.flac"}, {"bytes": None, "path": "a.wav"}, {"bytes": b"junk", "path": "j.wav"}]
    columns = {"audio": pa.array([*held, None], sound), "sentence": pa.array(["bytes", "path", "junk", "none"])}
    return pa.table({**columns, "locale": pa.array(["fr"] * 4)})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables_with_audio_come_in(folder, kind):
    table = _table(folder)
    from pyarrow import ipc, parquet

    if kind == "parquet":
        parquet.write_table(table, folder / "train-00000.parquet")
    else:
        with ipc.new_stream(str(folder / "data-00000.arrow"), table.schema) as writer:
            writer.write_table(table)
    made, problems = import_clips(folder, folder / "out")
    assert [(row.text, row.language) for row in made] == [("bytes", "fr"), ("path", "fr")]
    assert challenges.load(folder / "out").clips[0].audio() == audio.load(folder / "b.flac")
    assert [p.line for p in problems] == [3, 4]


def test_a_damaged_table_is_an_error(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra corpora)")
    for name in ("x.parquet", "x.arrow"):
        (folder / name).write_bytes(b"PAR1 nothing here")
        with pytest.raises(UsageError, match="no readable"):
            import_clips(folder / name, folder / "out")


def test_datasets_itself_writes_what_comes_in(folder):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed; it judges the reading of its files")
    made = datasets.Dataset.from_dict({"audio": [str(folder / "a.wav")], "text": ["by the library"]})
    made = made.cast_column("audio", datasets.Audio(decode=False))
    made.to_parquet(folder / "set.parquet")
    made.save_to_disk(folder / "saved")
    for number, path in enumerate((folder / "set.parquet", folder / "saved")):
        rows, problems = import_clips(path, folder / f"out{number}")
        assert problems == []
        assert [row.text for row in rows] == ["by the library"]
        assert rows[0].digest == audio.load(folder / "a.wav").digest


# The border


def test_what_is_no_corpus_is_refused(folder):
    (folder / "text.txt").write_text("hello")
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.jsonl.gz").write_bytes(b"not gzip")
    (folder / "in").mkdir()
    for name in ("text.txt", "none.jsonl", "in", "empty.jsonl", "bad.jsonl.gz"):
        with pytest.raises(UsageError):
            import_clips(folder / name, folder / "out")
    _write(folder / "m.jsonl", [{"audio_filepath": "a.wav", "text": "x"}])
    with pytest.raises(UsageError, match="known: nemo, lhotse, huggingface"):
        import_clips(folder / "m.jsonl", folder / "out", kind="kaldi")
    with pytest.raises(UsageError, match="category"):
        import_clips(folder / "m.jsonl", folder / "out", category="songs")
    with pytest.raises(UsageError, match="not empty"):
        import_clips(folder / "m.jsonl", folder)


def test_pyarrow_is_asked_for_by_name(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"install earmark\[corpora\]"):
        import_clips(folder / "x.parquet", folder / "out")


def test_the_command_names_faulty_lines_and_goes_on(folder, capsys):
    rows = [{"audio_filepath": "a.wav", "text": "fine"}, {"audio_filepath": "none.wav", "text": "gone"}]
    _write(folder / "m.jsonl", rows)
    code = main(["challenges", "import", str(folder / "m.jsonl"), "--out", str(folder / "out")])
    out, err = capsys.readouterr()
    assert (code, out.strip()) == (3, f"1 clips in {folder / 'out'}")
    assert err.startswith("earmark: line 2 (none.wav)")


def test_frames_are_rounded_as_lhotse_rounds():
    from earmark.challenges.sources import frames_of

    rng = np.random.default_rng(0)
    for seconds in rng.uniform(0, 50, 200).round(4):
        for rate in (8_000, 16_000, 22_050, 44_100):
            exact = Decimal(str(seconds)) * Decimal(rate)
            assert frames_of(float(seconds), rate) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
