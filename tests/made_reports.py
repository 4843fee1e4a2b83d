"""A report with every section, and what a page holds."""

from __future__ import annotations

import dataclasses
import math
from html.parser import HTMLParser

from made_runs import made_examples, made_run

from earmark.audit_log import Entry
from earmark.report import Report, Source, build
from earmark.runs import Run

SECTIONS = [
    "What was claimed and measured",
    "What was found",
    "Honest against dishonest values",
    "Errors of every threshold",
    "Evidence over an audit",
    "Entropy along a clip",
    "Word confidence",
    "Reliability",
    "Attribution",
    "What word error rates tell",
    "Cost",
    "Limits and assumptions",
    "Provenance",
]


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data
        if "style" not in self.open:
            self.text += data


def full_report() -> Report:
    """A report with every section."""
    entries = [
        Entry(clip=f"c{i}", outcome="FAIL", mode="replay", score=9.0, p_value=0.01, findings=(), log_e=i, decision=d)
        for i, d in enumerate(["INCONCLUSIVE"] * 9 + ["FAIL"])
    ]
    sources = [Source(name="run.jsonl", run=made_run(), examples=made_examples(), digests=(("run.jsonl", "0" * 64),))]
    return build(sources, audits=[("audit.jsonl", entries)], title="A title", command="earmark report run.jsonl")


def odd_runs() -> dict[str, Run]:
    nan = {"logprob_l1": math.nan, "margin_max": math.nan}
    small = made_run(8)
    return {
        "no rows": Run(),
        "one clip": made_run(1),
        "two clips": made_run(2),
        "no statistics": Run(dataclasses.replace(r, statistics={}, outcome="INCONCLUSIVE") for r in small),
        "NaN": Run(dataclasses.replace(r, statistics=nan) for r in small),
        "zeros": Run(dataclasses.replace(r, statistics={"logprob_l1": 0.0}) for r in small),
        "infinite": Run(dataclasses.replace(r, statistics={"logprob_l1": math.inf}) for r in small),
        "no transcripts": Run(dataclasses.replace(r, expected=None) for r in small),
        "no words": Run(dataclasses.replace(r, expected="...", text="") for r in small),
        "honest alone": small.where(lambda r: r.honest),
        "cheats alone": small.where(lambda r: not r.honest),
        "unknown family": Run(dataclasses.replace(r, family="somebody's") for r in small),
        "unknown precision": Run(dataclasses.replace(r, precision="fp7") for r in small),
    }
