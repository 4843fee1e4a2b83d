"""A trained classifier: its header, its estimator, and how both are saved, checked and used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from earmark.classify import storage
from earmark.classify.card import card
from earmark.classify.features import vector
from earmark.classify.figures import UNKNOWN
from earmark.classify.header import Header
from earmark.errors import OutputError, RecordError, UsageError
from earmark.fingerprint.shape import SHAPE_VERSION
from earmark.fingerprint.types import FINGERPRINT_VERSION, Fingerprint
from earmark.records import codec
from earmark.records.verdict import Verdict
from earmark.runs import Row

SKETCH = "sketch_"
"""What names of statistics begin with that only a sketch shows."""
HEADER_FILE, MODEL_FILE, CARD_FILE = "classifier.json", "classifier.skops", "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What one recording looks like.

    Attributes:
        label: The deployment, or `unknown`.
        probabilities: Probability of each known deployment, given that it is one of them.
        known: How usual the recording is for the most probable of them: a conformal p-value.
    """

    label: str
    probabilities: Mapping[str, float]
    known: float

    def __str__(self) -> str:
        """Return label, probability of the best known deployment, and p-value.

        Example:
            >>> str(Naming(label="int8", probabilities={"int8": 0.98, "reference": 0.02}, known=0.4))
            'int8 (most like int8, probability 0.98; p = 0.4 of being known)'
        """
        best = max(self.probabilities, key=lambda name: self.probabilities[name])
        return (
            f"{self.label} (most like {best}, probability {self.probabilities[best]:.2g}; "
            f"p = {self.known:.2g} of being known)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A header and the estimator that it describes.

    Attributes:
        header: Everything but the estimator.
        estimator: A fitted `DeploymentClassifier`.
    """

    header: Header
    estimator: Any

    def classify(self, source: Verdict | Fingerprint | Row | Mapping[str, Any]) -> Naming:
        """Name the deployment behind one recording.

        Args:
            source: A verdict, its dictionary, a fingerprint or a row of a run.

        Raises:
            UsageError: There was no replay, or it is of another model, precision, family, level or version.
        """
        return self.classify_many([source])[0]

    def classify_many(self, sources: Sequence[Verdict | Fingerprint | Row | Mapping[str, Any]]) -> list[Naming]:
        """Name the deployment behind each of several recordings.

        Args:
            sources: As for `classify`.

        Raises:
            UsageError: As for `classify`.
        """
        if not sources:
            return []
        rows = [vector(*self._numbers(source), self.header.names) for source in sources]
        values = np.asarray(rows, np.float64)
        try:
            shares, usual = self.estimator.predict_proba(values), self.estimator.p_values(values)
            unknown = self.estimator.is_unknown(values, self.header.refuse)
        except Exception as error:  # the parts of the estimator come from a file
            raise RecordError(f"the estimator does not work: {type(error).__name__}: {error}"[:300]) from error
        return [
            Naming(
                label=UNKNOWN if strange else self.header.classes[int(own.argmax())],
                probabilities=dict(zip(self.header.classes, map(float, own), strict=True)),
                known=float(p[own.argmax()]),
            )
            for own, p, strange in zip(shares, usual, unknown, strict=True)
        ]

    def _numbers(self, source: Any) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Return statistics and shape of a recording, once it is one of the classifier's references."""
        if isinstance(source, Row):
            self._check_level(source.level)
            self._check_reference(source.weights, source.precision, source.family)
            return self._shown(source.statistics), source.shape
        if isinstance(source, Mapping) and not isinstance(source, Fingerprint):
            made = source.get("provenance") or {}
            self._check_reference(made.get("weights"), made.get("precision"))
            self._check_version(source.get("fingerprint_version"))
            return self._shown(storage.numbers(source.get("fingerprint"))), storage.numbers(source.get("shape"))
        if isinstance(source, Verdict):
            self._check_reference(source.provenance.get("weights"), source.provenance.get("precision"))
            source = source.fingerprint
        if source is None:
            raise UsageError("there was no replay, so there is no fingerprint to classify")
        self._check_version(source.version)
        if source.family not in {own.family for own in self.header.references}:
            raise UsageError(f"a fingerprint of the family {source.family}; {self._knows()}")
        return self._shown(source), source.shape

    def _shown(self, statistics: Mapping[str, float]) -> Mapping[str, float]:
        """Return what evidence of the classifier's level would have shown: a sketch may lie beside the scores."""
        if self.header.level == "sketch":
            return statistics
        return {name: math.nan if name.startswith(SKETCH) else value for name, value in statistics.items()}

    def _check_level(self, level: str) -> None:
        if level not in {self.header.level, {"scores": "sketch"}.get(self.header.level)}:
            raise UsageError(f"evidence of the level {level}; the classifier was trained on {self.header.level}")

    def _check_reference(self, weights: str | None, precision: str | None, family: str | None = None) -> None:
        for own in self.header.references:
            if (weights, precision, family or own.family) == (own.weights, own.precision, own.family):
                return
        found = f"a recording against weights {str(weights)[:12]}, {precision}{f', {family}' if family else ''}"
        raise UsageError(f"{found}; {self._knows()}")

    def _knows(self) -> str:
        names = (f"{own.model} ({own.weights[:12]}, {own.precision}, {own.family})" for own in self.header.references)
        return f"the classifier knows {', '.join(names)}"

    def _check_version(self, version: object) -> None:
        if version != self.header.fingerprint_version:
            expected = self.header.fingerprint_version
            raise UsageError(f"fingerprint version {version}; the classifier was trained on {expected}: train it again")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the classifier into a folder: header, estimator and model card.

        Raises:
            OutputError: A file cannot be written.
            UsageError: skops is not installed.
        """
        target = Path(folder)
        data = storage.dump(self.estimator, self.header.names)
        header = msgspec.structs.replace(self.header, estimator=hashlib.sha256(data).hexdigest())
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target} cannot be made: {error}") from error
        codec.write_atomically(target / MODEL_FILE, data)
        codec.write_atomically(target / CARD_FILE, card(header, target.name).encode())
        header.save(target / HEADER_FILE)


def load(folder: str | os.PathLike[str]) -> Classifier:
    """Read a classifier from its folder; anything but what `save` writes is refused.

    Raises:
        RecordError: A file is damaged, of another version, or holds types that do not belong there.
        UsageError: A file is missing, or skops is not installed.
    """
    header = codec.decode(codec.read_bytes(Path(folder) / HEADER_FILE), Header)
    found = (header.fingerprint_version, header.shape_version)
    if found != (FINGERPRINT_VERSION, SHAPE_VERSION):
        expected = f"{FINGERPRINT_VERSION} and {SHAPE_VERSION}"
        raise RecordError(
            f"fingerprint and shape versions {found[0]} and {found[1]}; this earmark computes {expected}: train again",
            code="record.unknown_version",
        )
    data = codec.read_bytes(Path(folder) / MODEL_FILE)
    storage.check_archive(data)
    if hashlib.sha256(data).hexdigest() != header.estimator:
        raise RecordError(f"{MODEL_FILE} is not the one of {HEADER_FILE}: its SHA-256 differs")
    return Classifier(header=header, estimator=storage.restore(data, header.names, header.classes))
