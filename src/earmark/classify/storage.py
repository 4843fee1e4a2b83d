"""The estimator as bytes: skops in place of pickle, an explicit list of types, bounded sizes."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from earmark.errors import RecordError, UsageError
from earmark.extras import need
from earmark.records import lines

ALLOWED = frozenset({"earmark.classify.estimator.DeploymentClassifier", "earmark.classify.parts.Parts", "numpy.dtype"})
"""Types beyond those that skops trusts itself; nothing else is ever loaded."""
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MAX_MEMBERS = 4096
CONTENT = {"names", "estimator"}


def _skops() -> Any:
    return need("skops.io", what="saving and loading a classifier", extra="classify")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that make an estimator."""
    return {"scikit-learn": version("scikit-learn"), "scipy": version("scipy")}


def dump(estimator: Any, names: Sequence[str]) -> bytes:
    """Return an estimator and the names of its features as bytes.

    Raises:
        UsageError: skops is not installed.
    """
    data: bytes = _skops().dumps({"names": list(names), "estimator": estimator}, compression=zipfile.ZIP_DEFLATED)
    return data


def check_archive(data: bytes) -> None:
    """Check that bytes are an archive of bounded size.

    Raises:
        RecordError: They are something else, for instance a pickle, or would unpack to too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise RecordError(f"no skops file ({error}); expected an archive that `earmark train` wrote") from error
    size = sum(member.file_size for member in members)
    if size > MAX_UNPACKED_BYTES or len(members) > MAX_MEMBERS:
        raise RecordError(
            f"{len(members)} members of {size} bytes; at most {MAX_MEMBERS} of {MAX_UNPACKED_BYTES} bytes are read"
        )


def restore(data: bytes, names: Sequence[str], classes: Sequence[str]) -> Any:
    """Return the estimator that `dump` wrote, once its types, features and classes are those of a header.

    Raises:
        RecordError: It holds foreign types, or does not fit the header.
        UsageError: skops is not installed.
    """
    skops = _skops()
    try:
        foreign = sorted(set(skops.get_untrusted_types(data=data)) - ALLOWED)
        if foreign:
            raise RecordError(f"the estimator holds foreign types: {', '.join(foreign)[:200]}; nothing was loaded")
        content = skops.loads(data, trusted=sorted(ALLOWED))
    except RecordError:
        raise
    except Exception as error:  # skops raises whatever a damaged archive provokes
        raise RecordError(f"the estimator cannot be read: {type(error).__name__}: {error}"[:300]) from error
    return _checked(content, names, classes)


def _checked(content: Any, names: Sequence[str], classes: Sequence[str]) -> Any:
    from earmark.classify.estimator import DeploymentClassifier

    if not isinstance(content, dict) or set(content) != CONTENT:
        raise RecordError(f"the estimator's file holds no {' and '.join(sorted(CONTENT))}")
    estimator = content["estimator"]
    if type(estimator) is not DeploymentClassifier:
        raise RecordError(f"the estimator is a {type(estimator).__name__}; expected a DeploymentClassifier")
    if list(content["names"]) != list(names):
        raise RecordError("the header names other features, or in another order, than the estimator was trained on")
    if getattr(estimator, "n_features_in_", None) != len(names):
        raise RecordError(f"the estimator takes other than the {len(names)} features that the header names")
    if [str(name) for name in getattr(estimator, "classes_", ())] != list(classes):
        raise RecordError("the header names other deployments, or in another order, than the estimator knows")
    return estimator


def numbers(found: object) -> dict[str, float]:
    """Return named numbers of a verdict's JSON.

    Raises:
        UsageError: There are none, or they are no numbers.

    Example:
        >>> numbers({"logprob_l1": 0.5, "stop_distance": None})
        {'logprob_l1': 0.5, 'stop_distance': nan}
    """
    if not isinstance(found, Mapping):
        raise UsageError(
            "there was no replay, or the verdict is older; expected `fingerprint` and `shape`: verify again"
        )
    try:
        return {str(name): math.nan if value is None else lines.to_float(value) for name, value in found.items()}
    except RecordError as error:
        raise UsageError(f"the verdict's fingerprint: {error}") from error
