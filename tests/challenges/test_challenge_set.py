"""The challenge set: nothing changed, every fault is named, everything can be built again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from earmark import challenges as ch
from earmark.challenges import building, drawing, synthesis
from earmark.challenges.collection import default_folder
from earmark.challenges.text import is_test
from earmark.cli import main
from earmark.errors import AudioError, UsageError

CATEGORIES = {"clean", "accents", "multilingual", "noisy", "overlapping", "long", "ambiguous", "rare"}


def _edit(folder: Path, change) -> None:
    """Change the lines of a manifest in place."""
    path = folder / "manifest.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# The set


def test_the_set_is_as_committed(shipped):
    assert shipped.check() == []


def test_the_set_is_large_and_varied_and_its_files_are_small(shipped):
    assert len(shipped) >= 160
    assert {clip.category for clip in shipped} == CATEGORIES
    assert {clip.row.language for clip in shipped} == {"en", "de", "fr", "es", "mul"}
    files = [p for p in default_folder().rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 15_000_000
    assert all(60 <= clip.row.duration <= 180 for clip in shipped if clip.category == "long")
    assert {c.category for c in shipped if c.row.layers} >= {"noisy", "overlapping", "long"}


def test_no_sentence_can_be_in_a_training_corpus(shipped):
    said = [clip.text for clip in shipped if not clip.row.layers]
    assert said
    assert all(is_test(text) for text in said)
    assert not is_test("please open the window now")  # three of four sentences like it are for training


def test_mixes_are_recipes_over_stored_clips(shipped):
    stored = {clip.id for clip in shipped if clip.row.audio_filepath}
    parts = {layer.clip for clip in shipped for layer in clip.row.layers if layer.clip}
    assert parts <= stored
    assert all(not clip.row.audio_filepath for clip in shipped if clip.row.layers)


def test_clips_give_requests_in_their_language(shipped):
    assert shipped["clean-001"].language == "en"
    assert next(c for c in shipped if c.row.language == "mul").language is None
    assert shipped["clean-001"].audio().digest == shipped["clean-001"].row.digest
    with pytest.raises(UsageError, match="no clip 'nothing'"):
        shipped["nothing"]


# Damage


@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_one_changed_byte_names_the_clip(copied, place):
    path = copied / "audio" / "clean-003.flac"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place) if place != -1 else -1] ^= 1
    path.write_bytes(bytes(data))
    (problem,) = ch.load(copied, category="clean").check()
    assert (problem.id, problem.line) == ("clean-003", 3)


def test_a_changed_recipe_names_the_clip(copied):
    number = next(i for i, clip in enumerate(ch.load(copied)) if clip.category == "noisy")

    def change(lines):
        row = json.loads(lines[number])
        row["layers"][0]["gain"] = 4095
        lines[number] = json.dumps(row)

    _edit(copied, change)
    (problem,) = ch.load(copied, category="noisy").check()
    assert problem.line == number + 1
    assert "digest" in problem.message
    with pytest.raises(AudioError, match="digest"):
        ch.load(copied)[problem.id].audio()


BAD = {
    "missing file": ({"audio_filepath": "audio/none.flac"}, "no such file"),
    "unknown category": ({"category": "singing"}, "unknown category 'singing'; known: clean"),
    "empty transcript": ({"text": "  "}, "transcript is empty"),
    "NaN duration": ({"duration": float("nan")}, "duration is nan"),
    "negative duration": ({"duration": -1.0}, "duration is -1.0"),
    "infinite duration": ({"duration": float("inf")}, "duration is inf"),
    "no digest": ({"digest": "abc"}, "digest"),
    "escape": ({"audio_filepath": "../set/audio/clean-001.flac"}, "leaves the folder"),
    "absolute": ({"audio_filepath": "/etc/passwd"}, "leaves the folder"),
    "neither": ({"audio_filepath": ""}, "either audio_filepath"),
    "unknown field": ({"surprise": 1}, "surprise"),
    "unknown part": ({"audio_filepath": "", "layers": [{"clip": "nobody"}]}, "mixed from nobody"),
    "mix of itself": ({"audio_filepath": "", "layers": [{"clip": "clean-002"}]}, "mixed from clean-002"),
    "huge gain": ({"audio_filepath": "", "layers": [{"clip": "clean-001", "gain": 1 << 40}]}, "gain"),
    "huge offset": ({"audio_filepath": "", "layers": [{"clip": "clean-001", "offset": 1 << 60}]}, "offset"),
    "noise without end": ({"audio_filepath": "", "layers": [{"noise": "white"}]}, "number of samples"),
    "wrong type": ({"text": 5}, "text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_faulty_line_is_named_and_the_others_load(few, name):
    changes, message = BAD[name]
    whole = len(ch.load(few))
    _edit(few, lambda lines: lines.__setitem__(1, json.dumps({**json.loads(lines[1]), **changes})))
    loaded = ch.load(few)
    assert [(p.line, message in p.message) for p in loaded.problems if p.line == 2] == [(2, True)], loaded.problems
    assert "clean-002" not in {clip.id for clip in loaded}
    assert len(loaded) == whole - len(loaded.problems)


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"a":' * 5000, "\x00", '{"id": "x", "id": 3}', "9" * 5000])
def test_what_is_no_row_is_named(few, line):
    _edit(few, lambda lines: lines.insert(0, line))
    loaded = ch.load(few)
    assert [p.line for p in loaded.problems] == [1]
    assert len(loaded) == 12


def test_a_wrong_hash_is_named(few):
    _edit(few, lambda lines: lines.__setitem__(4, lines[4].replace('"sha256":"', '"sha256":"0', 1)))
    assert [p.line for p in ch.load(few).problems] == [5]  # 65 digits
    _edit(few, lambda lines: lines.__setitem__(4, json.dumps({**json.loads(lines[4]), "sha256": "0" * 64})))
    (problem,) = ch.load(few).check()
    assert problem.line == 5
    assert "expected 0000000000000000" in problem.message


def test_the_same_id_twice_and_a_wrong_duration_are_named(few):
    _edit(few, lambda lines: lines.append(lines[0]))
    _edit(few, lambda lines: lines.__setitem__(2, json.dumps({**json.loads(lines[2]), "duration": 1.0})))
    messages = {p.line: p.message for p in ch.load(few).check()}
    assert "stands in line 1 already" in messages[13]
    assert "duration is 1.0 s, the audio lasts" in messages[3]


def test_no_manifest_and_no_text_are_errors(tmp_path):
    with pytest.raises(UsageError, match="give an existing manifest"):
        ch.load(tmp_path)
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        ch.load(tmp_path)
    with pytest.raises(UsageError, match="no clip fits"):
        ch.load(category="other")


# Building again


def test_mixes_come_out_the_same_from_the_stored_clips(shipped, tmp_path):
    assert building.build(shipped, tmp_path / "out", stored=True) == []
    built = ch.load(tmp_path / "out")
    assert [clip.row.digest for clip in built] == [clip.row.digest for clip in shipped]
    assert all(clip.row.audio_filepath and not clip.row.layers for clip in built)
    assert built.check() == []
    with pytest.raises(UsageError, match="not empty"):
        building.build(shipped, tmp_path / "out", stored=True)


def test_the_whole_set_comes_out_the_same_from_the_synthesiser(shipped, need):
    need("espeak", "flite")
    assert building.build(shipped) == []


def test_a_changed_recipe_or_text_does_not_build(few, need):
    need("espeak", "flite")
    _edit(few, lambda lines: lines.__setitem__(0, lines[0].replace('"text":"', '"text":"so ', 1)))
    problems = building.build(ch.load(few))
    assert problems[0].id == "clean-001"
    assert "came out with digest" in problems[0].message


def test_another_synthesiser_is_refused_by_name(shipped, monkeypatch):
    monkeypatch.setattr(synthesis, "identity", lambda _: "espeak-ng 1.52 (aaaa)")
    expected = next(name for name in building.synthesisers(shipped).values() if name != "espeak-ng 1.52 (aaaa)")
    with pytest.raises(UsageError) as caught:
        building.build(shipped)
    assert "installed synthesiser is espeak-ng 1.52 (aaaa)" in str(caught.value)
    assert f"expected {expected}" in str(caught.value)


def test_no_synthesiser_is_an_error_that_says_what_to_install(shipped, monkeypatch):
    synthesis.identity.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="is not installed; on Debian: apt install"):
        building.build(shipped)
    with pytest.raises(UsageError, match="apt install espeak-ng"):
        drawing.make_drawing("00ff")
    monkeypatch.undo()
    synthesis.identity.cache_clear()


def test_a_voice_is_no_path_and_no_option():
    for name in ("../evil", "-w", "/etc/x", "a b", ""):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"engine": "espeak", "name": name}, synthesis.Voice)
    with pytest.raises(UsageError, match="flite voice 'nobody'"):
        synthesis.command("x", synthesis.Voice(engine="flite", name="nobody"), Path("x"))
    command = synthesis.command("-f /etc/passwd", synthesis.Voice(engine="espeak", name="de"), Path("x"))
    assert command[-2:] == ["--", "-f /etc/passwd"]


# The command line


def test_list_and_check(run, few):
    code, out, _ = run("list", "--category", "long", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {row["category"] for row in rows} == {"long"}
    code, out, _ = run("list", "--language", "fr")
    assert code == 0
    assert "clips," in out
    (few / "audio" / "clean-002.flac").write_bytes(b"fLaC")
    code, out, _ = run("check", few)
    assert code == 1
    assert "line 2 (clean-002): " in out
    code, out, _ = run("check", few, "--json")
    assert [problem["clip"] for problem in json.loads(out)["problems"]] == ["clean-002"]
    assert run("list", few / "nothing")[0] == 3


def test_build_says_with_what_the_set_was_built(run, shipped):
    code, out, err = run("build", "--stored")
    assert code == 0
    assert "built to the committed digests" in out
    assert building.synthesisers(shipped)["espeak"] in err
    assert run("build", "--calibration", 3)[0] == 3  # needs --out


# The page


def test_what_the_page_shows_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "challenges.md"
    blocks = re.findall(r"```(python|console)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(page), "exec"), {})  # noqa: S102 - the page is ours
        for line in block.splitlines() if kind == "console" else ():
            assert main(shlex.split(line.removeprefix("$ "))[1:]) == 0, line
    assert {kind for kind, _ in blocks} == {"python", "console"}
    assert "clips" in capsys.readouterr().out
