"""The settings of `.nemo` archives, and the features that they ask for."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from earmark.errors import ModelError
from earmark.models._nemo_archive import Archive

FEATURES = "preprocessor."
RATE = 16_000
MOST_MELS = 512
"""NeMo's models have 64, 80 or 128 mel bins."""
MOST_SECONDS = 0.25
"""Longest window and step of the features: the usual ones have 0.025 s and 0.01 s."""
MOST_FFT = 8_192
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 3, 120, 120
LETTERS = 200
"""Of a value that a message shows."""
DEFAULTS = {"subsampling": "striding"}
"""NeMo's defaults that are something else."""
PREPROCESSOR: Mapping[str, tuple[Any, ...]] = {
    "sample_rate": (RATE,),
    "normalize": ("per_feature",),
    "window": ("hann",),
    "log": (True,),
    "frame_splicing": (1,),
    "mag_power": (2.0,),
    "lowfreq": (0,),
    "highfreq": (None,),
    "exact_pad": (False,),
    "log_zero_guard_type": ("add",),
    "log_zero_guard_value": (2**-24,),
    "mel_norm": ("slaney",),
}


def setting(config: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return one setting; NeMo's `${model.other.setting}` is followed.

    Args:
        config: The configuration.
        path: Names with dots between them.
        default: What a missing setting is.

    Example:
        >>> setting({"a": {"b": "${model.c}"}, "c": 5}, "a.b")
        5
    """
    for _ in range(8):
        value: Any = config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        pointer = re.fullmatch(r"\$\{(?:model\.)?([\w.]+)\}", value) if isinstance(value, str) else None
        if pointer is None:
            return default if value is None else value
        path = pointer[1]
    raise ModelError(f"the setting {path!r} of the config refers to itself")


def number(config: Mapping[str, Any], path: str, default: float, *, least: float, most: float) -> float:
    """Return one setting that must be a number; every number of an archive is read like this.

    Args:
        config: The configuration.
        path: Names with dots between them.
        default: What a missing setting is.
        least: The smallest that it may be.
        most: The largest.

    Raises:
        ModelError: It is something else, or lies outside.

    Example:
        >>> number({"a": {"b": 0.02}}, "a.b", 0.01, least=0, most=1)
        0.02
        >>> number({"a": float("nan")}, "a", 0.01, least=0, most=1)
        Traceback (most recent call last):
        earmark.errors.ModelError: the setting a of the config is nan; expected a number from 0 to 1: ...
    """
    return number_of(setting(config, path, default), path, least=least, most=most)


def whole(config: Mapping[str, Any], path: str, default: int, *, least: int, most: int) -> int:
    """Return one setting that must be a whole number; see `number`.

    Raises:
        ModelError: It is something else, or lies outside.

    Example:
        >>> whole({}, "encoder.feat_in", 80, least=1, most=512)
        80
    """
    return whole_of(setting(config, path, default), path, least=least, most=most)


def number_of(found: Any, name: str, *, least: float, most: float) -> float:
    """Return a number that was found in a config, or in tensors, under some name.

    Raises:
        ModelError: It is no number, or lies outside.
    """
    value = _parsed(found) if isinstance(found, str) else found
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        expected = f"expected a number from {least} to {most}: fetch the archive again, or do not use it"
        raise ModelError(f"the setting {name} of the config is {shown(found)}; {expected}")
    return float(value)


def whole_of(found: Any, name: str, *, least: int, most: int) -> int:
    """Return a whole number that was found under some name.

    Raises:
        ModelError: It is no whole number, or lies outside.

    Example:
        >>> whole_of(2.5, "heads", least=1, most=8)
        Traceback (most recent call last):
        earmark.errors.ModelError: the setting heads of the config is 2.5; expected a whole number
    """
    value = number_of(found, name, least=least, most=most)
    if value != int(value):
        raise ModelError(f"the setting {name} of the config is {shown(found)}; expected a whole number")
    return int(value)


def _parsed(text: str) -> float:
    """Return the number in a text: YAML reads 1e-2 as one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def shown(value: Any) -> str:
    """Return a value for a message: short, whatever a stranger wrote.

    Example:
        >>> len(shown(["a" * 1_000] * 1_000)), shown(1 << 100_000)
        (200, 'a number of more digits than can be shown')
    """
    try:
        return SHORT.repr(value)[:LETTERS]
    except ValueError:
        return "a number of more digits than can be shown"


def check(archive: Archive, part: str, known: Mapping[str, tuple[Any, ...]], hint: str = "") -> None:
    """Refuse a part with settings that transformers does not have.

    Args:
        archive: The archive.
        part: Where its settings stand in the config.
        known: What transformers can do, by setting; the first is what a missing one is.
        hint: What to do instead.

    Raises:
        ModelError: A setting is another.
    """
    for name, values in known.items():
        found = setting(archive.config, f"{part}.{name}", DEFAULTS.get(name, values[0]))
        if found not in values:
            raise ModelError(f"{archive.path}: {part}.{name} is {shown(found)}; transformers has {values[0]!r}{hint}")


def extractor_of(archive: Archive) -> Any:
    """Return the feature extractor of transformers, with the archive's own filter bank where it has one.

    Raises:
        ModelError: The archive has other features, or numbers that no features have.
    """
    import transformers

    check(archive, "preprocessor", PREPROCESSOR)
    config, span = archive.config, {"least": 0.001, "most": MOST_SECONDS}
    window = round(RATE * number(config, "preprocessor.window_size", 0.02, **span))
    own_fft = 1 << (window - 1).bit_length()
    part = setting(config, "preprocessor")
    preemphasis = 0.0 if isinstance(part, Mapping) and "preemph" in part else 0.97  # null says none
    extractor = transformers.ParakeetFeatureExtractor(
        feature_size=whole(config, "preprocessor.features", 64, least=1, most=MOST_MELS),
        sampling_rate=RATE,
        hop_length=round(RATE * number(config, "preprocessor.window_stride", 0.01, **span)),
        n_fft=whole(config, "preprocessor.n_fft", own_fft, least=window, most=MOST_FFT),
        win_length=window,
        preemphasis=number(config, "preprocessor.preemph", preemphasis, least=0, most=1),
    )
    stored = archive.tensors.get(f"{FEATURES}featurizer.fb")
    if stored is not None and stored.numel() == extractor.mel_filters.numel():
        extractor.mel_filters = stored.reshape(extractor.mel_filters.shape).float()
    return extractor
