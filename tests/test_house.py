"""The plan of the house: light import, imports only downwards, every sub-package in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import earmark

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "matplotlib", "scipy", "sklearn", "pandas", "numba", "nemo", "numpy"}

#: Layers from the ground up; a module may import its own layer and those before it.
LAYERS = [
    {"errors", "extras", "limits", "noise"},
    {"_resample", "_soundio", "audio", "features", "checkpoint", "taps"},
    {"records.codec", "records.varint", "records.lines"},
    {"records.request", "records.receipt"},
    {"records.evidence", "records.policy"},
    {"fingerprint", "lattice", "decision"},
    {"records.verdict", "records.unanswered", "records.profile"},
    {"protocols", "registry"},
    {"profiles"},
    {"greedy"},
    {"verifiers", "models"},
    {"loading"},
    {"recording"},
    {"scenarios"},
    {"rules"},
    {"faint"},
    {"exact", "judging", "attribution", "budget", "probing"},
    {"replaying"},
    {"verification"},
    {"text_only", "signature"},
    {"testing"},
    {"interop"},
    {"runs", "engines"},
    {"splits"},
    {"study", "calibrate", "audit"},
    {"challenges"},
    {"classify"},
    {"detection", "examples", "comparisons", "stages", "bundles"},
    {"report"},
    {"cli"},
]


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_pulls_in_nothing_heavy():
    loaded = set(_run("import earmark, sys; print(*sys.modules)").split())
    assert not loaded & HEAVY


def test_public_names_resolve():
    assert {name for name in earmark.__all__ if not hasattr(earmark, name)} == set()
    assert dir(earmark) == sorted(earmark.__all__)


def _layer(module: str) -> int | None:
    """Return the layer of a module below `earmark`; None where it has none."""
    parts = module.split(".")
    for name in (".".join(parts[:2]), parts[0]):
        for number, layer in enumerate(LAYERS):
            if name in layer:
                return number
    return None


def _upward_imports(folder: Path, prefix: str) -> list[str]:
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        parts = [*prefix.split("."), *path.relative_to(folder).with_suffix("").parts]
        module = ".".join(part for part in parts if part and part != "__init__")
        own = _layer(module)
        if own is None:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                target = name.removeprefix("earmark.") if name.startswith("earmark.") else None
                layer = _layer(target) if target else None
                if layer is not None and layer > own:
                    wrong.append(f"{module} imports {name}")
                if {module.split(".")[0], (target or "").split(".")[0]} == {"verifiers", "models"}:
                    wrong.append(f"{module} imports {name}")
    return wrong


def test_imports_go_downwards():
    core = [p for p in (ROOT / "src" / "earmark").iterdir() if not p.is_symlink()]
    assert core
    wrong = _upward_imports(ROOT / "src" / "earmark", "")
    wrong += _upward_imports(ROOT / "verifiers", "verifiers") + _upward_imports(ROOT / "models", "models")
    assert wrong == []


def test_an_upward_import_would_be_found(tmp_path):
    (tmp_path / "whisper.py").write_text("from earmark.verifiers.autoregressive import AutoregressiveFamily\n")
    (tmp_path / "upward.py").write_text("def f():\n    from earmark.recording import record\n")
    assert len(_upward_imports(tmp_path, "models")) == 2


def _listed() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return set(settings["packages"])


def _packages_on_disk(root: Path) -> set[str]:
    found = {"earmark"}
    for init in (root / "src" / "earmark").rglob("__init__.py"):
        found.add(".".join(("earmark", *init.parent.relative_to(root / "src" / "earmark").parts)))
    return found | {f"earmark.{name}" for name in ("verifiers", "models", "data") if (root / name).is_dir()}


def test_every_sub_package_is_listed_for_the_wheel():
    assert _listed() == _packages_on_disk(ROOT)


def test_an_unlisted_sub_package_would_be_found(tmp_path):
    package = tmp_path / "src" / "earmark" / "new"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert "earmark.new" in _packages_on_disk(tmp_path) - _listed()


@pytest.mark.parametrize("name", ["verifiers", "models"])
def test_plugin_folders_are_flat(name):
    assert [p for p in (ROOT / name).iterdir() if p.is_dir() and p.name != "__pycache__"] == []


def test_every_test_command_of_ci_is_the_readmes():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
