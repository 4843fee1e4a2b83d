"""JSON lines with what others wrote in them: any character in a name or transcript, infinity, damage."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.cli import main
from earmark.cli.files import find_audio, find_receipts
from earmark.cli.openings import drawn_receipts
from earmark.errors import OutputError, RecordError, UsageError
from earmark.records import lines
from earmark.records.receipt import Receipt

HOSTILE = "a\u2028b\u2029c\x85d\x1ee\x0bf\x0cg\rh\ni\x7fj\x9b2J größer 你好"
"""Every character at which `str.splitlines` breaks, controls of terminals, and letters that stay readable."""


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_one_line_that_reads_back(text):
    line = lines.to_line({text: text})
    assert len(line.splitlines()) == 1
    assert lines.from_line(line) == {text: text}
    assert line.encode().decode() == line


def test_letters_stay_readable():
    assert "größer 你好" in lines.to_line({"text": HOSTILE})


def test_only_a_line_feed_ends_a_line(tmp_path):
    """Also in files that another program wrote, without the escapes."""
    path = tmp_path / "rows.jsonl"
    rows = [{"text": HOSTILE}, {"text": "b"}]
    path.write_bytes("\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert list(lines.read(path, lines.from_line)) == [(1, rows[0]), (3, rows[1])]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "list found, expected a JSON object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"text": "\xff"}', "no UTF-8"),
        (b'{"text": "' + b"a" * 2000 + b'"}', "more than 1000 bytes"),
    ],
)
def test_damage_names_file_and_line(tmp_path, monkeypatch, damage, words):
    if words.startswith("more"):
        monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + damage + b"\n")
    with pytest.raises(RecordError, match=rf"rows\.jsonl, line 2: .*{words}"):
        list(lines.read(path, lines.from_line))


def test_missing_files(tmp_path):
    with pytest.raises(UsageError, match="give an existing file"):
        list(lines.numbered(tmp_path / "gone"))
    with pytest.raises(OutputError, match="give a file"):
        lines.drop_torn_line(tmp_path)


@given(st.floats())
def test_numbers_survive(value):
    written = json.loads(lines.to_line({"value": lines.from_float(value)}))["value"]
    assert lines.to_float(written) == pytest.approx(value, rel=0, abs=0, nan_ok=True)
    assert (written is None, isinstance(written, str)) == (math.isnan(value), math.isinf(value))


@pytest.mark.parametrize("value", [True, "inf", "nan", "1", [1.0], math.inf, math.nan, 10**400, {}])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(RecordError, match="expected a number"):
        lines.to_float(value)


# Files that the commands read


@pytest.fixture
def receipts(tmp_path):
    """Two receipts that were handed in, one under a hostile name."""
    made = {name: Receipt(commitment=digit * 64) for name, digit in ((HOSTILE, "a"), ("plain", "b"))}
    (tmp_path / "handed-in").mkdir()
    for name, receipt in made.items():
        receipt.save(tmp_path / "handed-in" / f"{name}.receipt.json")
    return made


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_drawn_receipts_come_back_whatever_their_names(receipts, tmp_path, capsys, options):
    """A name cannot add a line to what was drawn, nor make the list unreadable."""
    (tmp_path / "secret").write_bytes(b"sixteen bytes or more")
    folder, secret = str(tmp_path / "handed-in"), str(tmp_path / "secret")
    assert main(["draw", folder, "--seed-file", secret, "--count", "2", *options]) == 0
    drawn = tmp_path / "drawn"
    drawn.write_text(capsys.readouterr().out, encoding="utf-8")
    found = {receipt.commitment: name for receipt, name in drawn_receipts(drawn)}
    assert found.keys() == {receipt.commitment for receipt in receipts.values()}
    assert found["b" * 64] == "plain.receipt.json"
    assert (found["a" * 64] == f"{HOSTILE}.receipt.json") == bool(options)


def test_short_receipts_name_the_line(receipts, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\r\n".join(receipt.token for receipt in receipts.values()).encode())
    assert [(name, own.commitment[0]) for name, own in find_receipts([path])] == [
        ("list.txt:1", "a"),
        ("list.txt:2", "b"),
    ]
    path.write_bytes(b"\x85\n" + path.read_bytes())
    with pytest.raises(RecordError, match=r"list\.txt, line 1"):
        find_receipts([path])


def test_manifests_with_any_name(tmp_path):
    (tmp_path / HOSTILE).touch()
    manifest = tmp_path / "set.jsonl"
    manifest.write_bytes(json.dumps({"audio": HOSTILE}, ensure_ascii=False).encode() + b"\n")
    assert [item.name for item in find_audio([manifest])] == [HOSTILE]
    manifest.write_text('{"audio": ["a"]}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"set\.jsonl, line 1: expected a JSON object with one of"):
        find_audio([manifest])
