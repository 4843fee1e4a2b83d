"""What every loader keeps: it knows its own checkpoints from others, and runs nothing that lies in a folder."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.errors import ModelError
from earmark.protocols import Model, ModelLoader
from earmark.testing.bench import require

OTHERS: tuple[Any, ...] = ("bert", "no-such-kind", "", 7, None, ["whisper"], {"a": 1})
"""Kinds of model that no loader of speech recognition opens."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A loader and a checkpoint that is its own."""

    loader: ModelLoader
    folder: Path

    def load(self, folder: Path | None = None, dtype: str = "float32") -> Model:
        """Open a checkpoint, by default the own one, on the CPU."""
        return self.loader.load(
            folder or self.folder, name="own", device="cpu", dtype=dtype, arithmetic=dtype, attention="eager"
        )


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        """Remember what to touch."""
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        """Return what a pickle would call."""
        return Path.touch, (self.marker,)


@contextmanager
def _foreign(config: Any) -> Iterator[tuple[Path, Path]]:
    """Yield a folder with that config.json, full of code that would run if anything ran it, and the mark it leaves."""
    with tempfile.TemporaryDirectory() as name:
        marker, folder = Path(name) / "ran", Path(name) / "checkpoint"
        folder.mkdir()
        code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n"
        for file in ("modeling.py", "__init__.py", "setup.py", "conftest.py"):
            (folder / file).write_text(code, encoding="utf-8")
        for file in ("pytorch_model.bin", "model.pt", "tokenizer.pkl"):
            (folder / file).write_bytes(pickle.dumps(Trap(marker)))
        if config is not None:
            text = config if isinstance(config, str) else json.dumps(config)
            (folder / "config.json").write_text(text, encoding="utf-8")
        yield folder, marker


def knows_its_own(opened: Opened) -> None:
    """The loader says what it is, recognises its own checkpoint, and opens it twice alike."""
    loader = opened.loader
    for name in ("name", "family", "summary"):
        require(isinstance(getattr(loader, name, None), str), f"no {name}", "a text", "declare it on the class")
    require(loader.recognises(opened.folder), f"{opened.folder} not recognised", "True", "look at config.json")
    for dtype, precision in (("float32", "fp32"), ("bfloat16", "bf16")):
        one, other = opened.load(dtype=dtype).info, opened.load(dtype=dtype).info
        require(one == other, f"{one}, then {other}", "the same facts each time", "let them follow from the folder")
        found = (one.family, one.architecture, one.name, one.precision)
        expected = (loader.family, loader.name, "own", precision)
        require(found == expected, found, f"(family, architecture, name, precision) {expected}", "take what was asked")


def leaves_others(opened: Opened) -> None:
    """Foreign folders are not recognised, and nothing in them runs."""
    configs: list[Any] = [{"model_type": kind, "auto_map": {"AutoModel": "modeling.Evil"}} for kind in OTHERS]
    unreadable: list[Any] = [None, "", "{", "[]", "[" * 100_000, '{"model_type": "' + "x" * 1_000_000]
    for config in configs + unreadable:
        shown = repr(config)[:60]
        with _foreign(config) as (folder, marker):
            found = f"a folder with config.json {shown} recognised"
            require(not _recognised(opened.loader, folder), found, "False", "look at its kind")
            require(not marker.exists(), f"code of a folder with {shown} run", "nothing run", "read config.json alone")


def _recognised(loader: ModelLoader, folder: Path) -> bool:
    try:
        return loader.recognises(folder)
    except ModelError:  # a config that cannot be read is nobody's
        return False


def runs_nothing(opened: Opened) -> None:
    """A folder with the own kind of config and no weights but pickles and code is refused, and nothing in it runs."""
    own = opened.folder / "config.json"
    if not own.is_file():
        return
    config = {**json.loads(own.read_text(encoding="utf-8")), "auto_map": {"AutoModel": "modeling.Evil"}}
    with _foreign(config) as (folder, marker):
        for file in opened.folder.glob("*.json"):
            if file.name != "config.json" and "index" not in file.name:
                shutil.copy(file, folder)
        try:
            opened.load(folder)
        except ModelError:
            refused = True
        else:
            refused = False
        require(refused, "a checkpoint without safetensors opened", "ModelError", "load safetensors alone")
        require(not marker.exists(), "code of the checkpoint run", "nothing run", "no pickles, no remote code")


LOADER_CONTRACTS: dict[str, Callable[[Opened], None]] = {
    "knows its own": knows_its_own,
    "leaves others": leaves_others,
    "runs nothing": runs_nothing,
}
"""Name to contract."""
