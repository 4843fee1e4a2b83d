"""What is installed: `earmark families`, `earmark models`, `earmark scenarios`."""

from __future__ import annotations

from earmark import registry
from earmark.checkpoint import EMBEDDED, embedded_names
from earmark.cli import PASSED, show
from earmark.cli.options import Json


def families(as_json: Json = False) -> int:
    """List the architecture families that can be verified, and plugins that do not load."""
    return _show("family", as_json)


def models(as_json: Json = False) -> int:
    """List the model families that can be loaded, and the models that ship with earmark."""
    return _show("model", as_json, {"shipped with earmark": [f"{EMBEDDED}{name}" for name in embedded_names()]})


def scenarios(as_json: Json = False) -> int:
    """List the simulated providers."""
    return _show("scenario", as_json)


def _show(kind: str, as_json: bool, extra: dict[str, list[str]] | None = None) -> int:
    plugins = registry.registry(kind).inspect_all()
    rows = [
        {
            "name": plugin.name,
            "summary": getattr(plugin.value, "summary", None) or (plugin.value.__doc__ or "").split("\n")[0]
            if plugin.error is None
            else "",
            "origin": " and ".join(plugin.origins),
            "error": plugin.error,
        }
        for plugin in plugins
    ]
    if as_json:
        for row in rows:
            show.json_line(row)
        return PASSED
    cells = [[str(row["name"]), str(row["error"] or row["summary"]), str(row["origin"])] for row in rows]
    show.table((kind, "what it is", "from"), cells)
    for title, names in (extra or {}).items():
        print(f"{title}: {', '.join(names) or 'none'}")
    return PASSED
