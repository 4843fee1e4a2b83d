"""The core runs without any of the extras."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))
from earmark.cli import main
from earmark.records.verdict import Verdict
codes = [main(arguments) for arguments in {commands!r}]
try:
    Verdict(outcome="PASS", proves="committed").to_pandas()
except ValueError as error:
    print(error, file=sys.stderr)
sys.exit(max(codes))
"""


def _optional() -> set[str]:
    """Return the import names of everything that only extras bring."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {re.split(r"[>;\[ ]", name)[0].replace("-", "_") for group in extras.values() for name in group}
    return names - {"earmark", "jinja2"}  # jinja2 comes with torch


def test_record_and_verify_need_no_extra(tmp_path):
    absent = _optional()
    assert {"pandas", "matplotlib", "jiwer"} <= absent
    clip, out = str(ROOT / "data" / "clips" / "00.flac"), str(tmp_path / "evidence.json")
    model = "embedded:whisper-nano"
    commands = [
        ["record", model, clip, "--out", out, "--language", "en"],
        ["verify", out, "--model", model, "--audio", clip, "--profile", "provisional"],
        ["families"],
        ["doctor"],
    ]
    code = MAIN.format(absent=absent, commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    assert "install earmark[table]" in done.stderr
