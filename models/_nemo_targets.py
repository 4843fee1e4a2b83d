"""What the configuration of a `.nemo` archive may ask NeMo to make: modules for speech, and the tokenizers of Canary.

NeMo, through Hydra, makes an object of every class or function that a configuration names, with arguments of the
configuration's choice. A name that begins with NeMo's is no proof: Hydra goes from attribute to attribute, and
`nemo.collections.asr.models.x.os.system` ends elsewhere. So names are looked at before NeMo is imported, and what they
lead to before NeMo makes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from earmark.errors import ModelError
from earmark.models._nemo_settings import shown

TARGETS = ("_target_", "target", "cls")
"""Settings that name what is made."""
TRUSTED = ("nemo.collections.asr.", "nemo.collections.common.")
NAME = re.compile(r"nemo\.collections(\.[A-Za-z_]\w*)+", re.ASCII)
TOKENIZERS = "nemo.collections.common.tokenizers.canary_tokenizer."
FUNCTIONS = ("nemo.collections.asr.modules.transformer.transformer_utils.get_nemo_transformer",)
"""Canary's decoder is made by this function, which makes a module and nothing else."""


def refuse_foreign_targets(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a config that names anything outside NeMo's collections, or that is another once it is resolved.

    Args:
        config: The configuration as it is written.
        path: The archive.

    Raises:
        ModelError: It does; or it holds `${...}`, which NeMo would replace, by settings that nobody looked at.

    Example:
        >>> refuse_foreign_targets({"decoder": {"_target_": "os.system"}}, Path("a.nemo"))
        Traceback (most recent call last):
        earmark.errors.ModelError: a.nemo: the config names 'os.system', which is not of NeMo; do not use it
    """
    for _, name in _named(config):
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ModelError(f"{path}: the config names {shown(name)}, which is not of NeMo; do not use it")
    for part in _parts(config):
        if isinstance(part, str) and "${" in part:
            raise ModelError(
                f"{path}: the config holds {shown(part)}, which NeMo would replace; expected plain settings: "
                'use engine="transformers", or save the model anew with NeMo'
            )


def refuse_foreign_objects(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a config whose names lead elsewhere; NeMo must be installed, and `refuse_foreign_targets` content.

    Args:
        config: The configuration as NeMo read it.
        path: The archive.

    Raises:
        ModelError: The config as a whole is no model for speech, or a part of it no module and no tokenizer of Canary.
    """
    from hydra.utils import get_object

    for part, name in _named(config):
        try:
            found = get_object(name)  # looks up and imports as Hydra does when it makes the object
        except Exception as error:
            # importing runs NeMo's modules, and any error there means that the name cannot be used
            raise ModelError(f"{path}: the config names {name[:200]!r}, which this NeMo has not: {error}") from error
        if not _is_known(found, whole=part is config):
            raise ModelError(f"{path}: the config names {name[:200]!r}, which is no module of NeMo for speech")


def _is_known(found: Any, *, whole: bool) -> bool:
    """Tell whether an object is a model for speech, or for a part of a config a module that restores no other model."""
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.core import ModelPT

    place = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    while hasattr(found, "__wrapped__"):  # what NeMo calls experimental stands behind a proxy
        found = found.__wrapped__
    if not isinstance(found, type):
        return place in FUNCTIONS and not whole
    if not found.__module__.startswith(TRUSTED):
        return False
    if whole:
        return issubclass(found, ASRModel)
    return place.startswith(TOKENIZERS) or (issubclass(found, torch.nn.Module) and not issubclass(found, ModelPT))


def _named(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the parts that ask for something, and what they ask for."""
    for part in _parts(config):
        if isinstance(part, dict):
            yield from ((part, part[name]) for name in TARGETS if name in part)


def _parts(config: Any) -> Iterator[Any]:
    """Yield a config, what is in it, what is in that; a part that it refers to twice is looked at once."""
    seen: set[int] = set()
    left = [config]
    while left:
        part = left.pop()
        if isinstance(part, dict | list):
            if id(part) in seen:
                continue
            seen.add(id(part))
            left += part.values() if isinstance(part, dict) else part
        yield part
