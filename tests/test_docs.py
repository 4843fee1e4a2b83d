"""The documentation: every page is in the navigation, every link leads somewhere, the tutorial says what happens."""

from __future__ import annotations

import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from earmark.cli import main
from earmark.testing import FAMILY_CONTRACTS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIAL = (DOCS / "tutorial" / "first-verdict.md").read_text(encoding="utf-8")


class _Settings(yaml.SafeLoader):
    """Reads mkdocs.yml without its tags for Python."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def _settings(path: Path = ROOT / "mkdocs.yml") -> dict:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Settings)  # noqa: S506 - a safe loader


def _entries(nav) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    inner = nav.values() if isinstance(nav, dict) else nav
    return set().union(*(_entries(entry) for entry in inner))


def test_navigation_and_pages_are_the_same():
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES}
    listed = _entries(_settings()["nav"])
    assert listed - pages == set(), "mkdocs.yml names pages that do not exist"
    assert pages - listed == set(), "add these pages to `nav` in mkdocs.yml"


def test_nothing_is_fetched_from_elsewhere():
    settings = _settings()
    assert settings["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript"} & set(settings)


def _slug(heading: str) -> str:
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", lambda m: m[1] or "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain))


def _anchors(page: Path) -> set[str]:
    return {_slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)}


def _broken_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        lost = not target.exists() or (anchor and anchor not in _anchors(target))
        if "://" not in link and lost:
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_lead_somewhere(page):
    assert _broken_links(page) == []


def test_a_broken_link_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](gone.md) [b](#one) [c](#two) [d](https://example.org)\n", encoding="utf-8")
    assert _broken_links(page) == ["gone.md", "#two"]


def test_threats_name_tests_that_exist():
    text = (DOCS / "explanation" / "threats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", source))
    assert len(named) > 20
    assert named - defined == set()
    assert [n for n in range(1, 34) if not re.search(rf"^\| A{n}b? \|", text, re.MULTILINE)] == []
    contracts = set(re.findall(r"contract `([a-z ]+)`", text))
    assert contracts <= set(FAMILY_CONTRACTS)


def test_modules_of_the_reference_exist():
    import importlib

    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            try:
                importlib.import_module(name)
            except ImportError:
                module, _, attribute = name.rpartition(".")
                assert hasattr(importlib.import_module(module), attribute), f"{page.name}: {name}"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copy(Path(str(files("earmark.data"))) / "clips" / "00.flac", folder / "meeting.flac")
    return folder


def _steps() -> list[tuple[str, str]]:
    """Return every command of the tutorial with the output that follows it, if any."""
    found = re.findall(r"```(console|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?", TUTORIAL, flags=re.DOTALL)
    return [(kind + "\n" + code, shown) for kind, code, shown in found]


def test_the_tutorial_says_what_happens(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    checked = 0
    for step, shown in _steps():
        kind, _, code = step.partition("\n")
        capsys.readouterr()
        if kind == "python":
            exec(compile(code, "first-verdict.md", "exec"), {})  # noqa: S102 - the tutorial is ours
        else:
            for line in code.splitlines():
                capsys.readouterr()
                assert main(shlex.split(line)[2:]) in (0, 1), line
        printed = capsys.readouterr().out
        if shown:
            assert _essence(printed) == _essence(shown)
            checked += 1
    assert checked == 4


def _essence(text: str) -> list[str]:
    """Return the lines of an output without the digits that differ from machine to machine."""
    lines = [re.sub(r"\d\.\d+(e-\d+)?", "#", line.rstrip()) for line in text.strip().splitlines()]
    return [re.sub(r"[━─]+", "-", line) for line in lines]
