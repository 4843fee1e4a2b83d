"""`earmark doctor`: does this installation work?"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from earmark.cli import PASSED, UNUSABLE, show
from earmark.cli.options import Json
from earmark.errors import EarmarkError

PACKAGES = ("torch", "transformers", "numpy", "scipy", "soundfile", "safetensors", "msgspec")
OPTIONAL = ("pandas", "matplotlib", "jiwer", "soxr")


def doctor(as_json: Json = False) -> int:
    """Check this installation: versions, devices, plugins, embedded models."""
    checks = examine()
    if as_json:
        for check in checks:
            show.json_line(check)
    else:
        show.table(("check", "state", "detail"), [[c["check"], c["state"], c["detail"]] for c in checks])
    return UNUSABLE if any(check["state"] == "broken" for check in checks) else PASSED


def _check(name: str, state: str, detail: str) -> dict[str, str]:
    return {"check": name, "state": state, "detail": detail}


def examine() -> list[dict[str, str]]:
    """Return one row per check: what, `ok` / `absent` / `broken`, and the detail."""
    return [_check("python", "ok", platform.python_version()), *_packages(), _cuda(), *_plugins(), *_models()]


def _packages() -> list[dict[str, str]]:
    rows = []
    for name in (*PACKAGES, *OPTIONAL):
        try:
            rows.append(_check(name, "ok", version(name)))
        except PackageNotFoundError:
            needed = name in PACKAGES
            detail = "needed; reinstall earmark" if needed else "optional"
            rows.append(_check(name, "broken" if needed else "absent", detail))
    return rows


def _cuda() -> dict[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return _check("cuda", "broken", f"torch does not load: {error}")
    if not torch.cuda.is_available():
        return _check("cuda", "absent", "earmark runs on the CPU")
    return _check("cuda", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))


def _plugins() -> list[dict[str, str]]:
    from earmark.registry import GROUPS, registry

    plugins = [plugin for kind in GROUPS for plugin in registry(kind).inspect_all()]
    return [
        _check(f"{p.kind} {p.name}", "broken" if p.error else "ok", p.error or " and ".join(p.origins)) for p in plugins
    ]


def _models() -> list[dict[str, str]]:
    from earmark.checkpoint import EMBEDDED, embedded_names, resolve, weights_digest

    rows = []
    for name in embedded_names():
        try:
            rows.append(_check(f"{EMBEDDED}{name}", "ok", weights_digest(resolve(EMBEDDED + name)[0])[:16]))
        except EarmarkError as error:
            rows.append(_check(f"{EMBEDDED}{name}", "broken", str(error)))
    return rows
