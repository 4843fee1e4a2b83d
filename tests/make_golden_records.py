"""Rewrites tests/golden/records; run only after a deliberate change of format (docs/how-to/change-a-format.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
GOLDEN = Path(__file__).parent / "golden" / "records"
GOLDEN.mkdir(parents=True, exist_ok=True)
if not (GOLDEN / "digests.json").exists():
    (GOLDEN / "digests.json").write_text("{}")

from test_records import RECORDS  # noqa: E402 - the digests must exist before the tests are read

for name, record in RECORDS.items():
    record.save(GOLDEN / f"{name}.json")
    record.save(GOLDEN / f"{name}.msgpack")
(GOLDEN / "digests.json").write_text(json.dumps({n: r.digest() for n, r in RECORDS.items()}, indent=1) + "\n")
