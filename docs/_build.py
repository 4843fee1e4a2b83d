"""What mkdocs runs while it builds: pages made from the code, and no address outside the site."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

DOCS = Path(__file__).resolve().parent
OUTSIDE = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(https?:)?//[^>]*>", re.IGNORECASE)


ABROAD = re.compile(r"\[([^]]+)\]\((?:\.\./)+([^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the commands' own help and the contracts, and name files of the repository that are no page."""
    here = Path(page.file.abs_src_path).parent

    def named(link: re.Match[str]) -> str:
        target = (here / link[0].rpartition("(")[2].rstrip(")")).resolve()
        return link[0] if target.suffix == ".md" and target.is_relative_to(DOCS) else f"{link[1]} (`{link[2]}`)"

    markdown = ABROAD.sub(named, markdown)
    markdown = markdown.replace("<!-- commands -->", _commands()) if "<!-- commands -->" in markdown else markdown
    return re.sub(r"<!-- contracts: (\S+) (\S+) -->", lambda match: _contracts(*match.groups()), markdown)


def _commands() -> str:
    import typer
    from typer.cli import get_docs_for_click

    from earmark.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="earmark")
    return text.partition("\n")[2].replace("`earmark`", "earmark")  # without the first heading


def _contracts(module: str, name: str) -> str:
    contracts = getattr(importlib.import_module(module), name)
    rows = [f"| {title} | {check.__doc__} |" for title, check in contracts.items()]
    return "\n".join(["| contract | what it says |", "|---|---|", *rows])


def on_post_build(config: Any, **_: Any) -> None:
    """Refuse pages that would fetch anything from elsewhere."""
    for page in Path(config["site_dir"]).rglob("*.html"):
        for tag in OUTSIDE.finditer(page.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in tag[0]:
                raise PluginError(f"{page.name} fetches from elsewhere: {tag[0][:120]}")
