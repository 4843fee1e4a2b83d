"""The settings of `.nemo` archives, and the features that they ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from earmark.errors import ModelError
from earmark.models._nemo_archive import Archive

FEATURES = "preprocessor."
DEFAULTS = {"subsampling": "striding"}
"""NeMo's defaults that are something else."""
PREPROCESSOR: Mapping[str, tuple[Any, ...]] = {
    "sample_rate": (16_000,),
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
            raise ModelError(f"{archive.path}: {part}.{name} is {found!r}; transformers has {values[0]!r}{hint}")


def extractor_of(archive: Archive) -> Any:
    """Return the feature extractor of transformers, with the archive's own filter bank where it has one.

    Raises:
        ModelError: The archive has other features.
    """
    import transformers

    check(archive, "preprocessor", PREPROCESSOR)
    rate, get = 16_000, setting
    window = round(rate * float(get(archive.config, "preprocessor.window_size", 0.02)))
    mels = int(get(archive.config, "preprocessor.features", 64))
    extractor = transformers.ParakeetFeatureExtractor(
        feature_size=mels,
        sampling_rate=rate,
        hop_length=round(rate * float(get(archive.config, "preprocessor.window_stride", 0.01))),
        n_fft=int(get(archive.config, "preprocessor.n_fft", 1 << (window - 1).bit_length())),
        win_length=window,
        preemphasis=float(get(archive.config, "preprocessor.preemph", 0.97)),
    )
    stored = archive.tensors.get(f"{FEATURES}featurizer.fb")
    if stored is not None and stored.numel() == extractor.mel_filters.numel():
        extractor.mel_filters = stored.reshape(extractor.mel_filters.shape).float()
    return extractor
