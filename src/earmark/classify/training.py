"""Training: from a run to a classifier with its figures."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from earmark.classify import storage
from earmark.classify.classifier import Classifier
from earmark.classify.evaluation import cross_validate, fit, importance
from earmark.classify.features import REFERENCE, Features, table
from earmark.classify.figures import UNKNOWN
from earmark.classify.header import Header, Reference
from earmark.errors import UsageError
from earmark.fingerprint.shape import SHAPE_VERSION
from earmark.fingerprint.types import FINGERPRINT_VERSION
from earmark.profiles import provenance
from earmark.runs import Row, Run

SHOWN_FEATURES = 12
"""The most important features that a header keeps."""


def train(
    run: Run | Sequence[Row],
    *,
    features: Features = "replay",
    exclude: Collection[str] = (),
    speakers: Mapping[str, Sequence[Hashable]] | None = None,
    refuse: float = 0.05,
    folds: int = 5,
    seed: int = 0,
    source: str = "",
) -> Classifier:
    """Train a classifier on a run, and measure it by cross-validation over base clips and speakers.

    Args:
        run: Rows of one or several references, every deployment on many clips.
        features: `alone`, `replay` or `matched`.
        exclude: Deployments that are tested as unknown and never trained on.
        speakers: Speakers of each clip by its name; without it, groups are base clips alone.
        refuse: Share of rows of known deployments that may be called unknown.
        folds: Number of folds.
        seed: Seed of every split.
        source: The command, for the model card.

    Returns:
        The classifier; its figures are in `header.figures`.

    Raises:
        UsageError: The run holds too few deployments or clips, rows of several levels or precisions, or a cheat that
            is called `reference` or `unknown`.
    """
    data = table(run, features, speakers=speakers)
    _check_one_kind(data.rows)
    figures = cross_validate(data, exclude=exclude, folds=folds, seed=seed, refuse=refuse)
    inside = np.flatnonzero([label not in exclude for label in data.labels])
    weights = importance(data, exclude=exclude, folds=folds, seed=seed)
    estimator = fit(data, inside, seed)
    header = Header(
        fingerprint_version=FINGERPRINT_VERSION,
        shape_version=SHAPE_VERSION,
        features=features,
        names=data.names,
        classes=tuple(map(str, estimator.classes_)),
        references=_references([data.rows[i] for i in inside]),
        level=data.rows[0].level,
        refuse=refuse,
        rows=len(inside),
        clips=len({data.rows[i].base for i in inside}),
        excluded=tuple(sorted(exclude)),
        run=_digest(data.rows),
        estimator="0" * 64,  # known once it is written
        figures=figures,
        importance={name: round(fall, 4) for name, fall in list(weights.items())[:SHOWN_FEATURES] if fall > 0},
        provenance=provenance(command=source, seed=seed, folds=folds, **storage.versions()),
    )
    return Classifier(header=header, estimator=estimator)


def _check_one_kind(rows: Sequence[Row]) -> None:
    """Refuse what would be learned as if it were the deployment."""
    for what, found in (("levels", {row.level for row in rows}), ("precisions", {row.precision for row in rows})):
        if len(found) > 1:
            raise UsageError(f"the run mixes evidence of the {what} {', '.join(sorted(found))}; give one of them")
    for row in rows:
        if not row.honest and row.scenario in (REFERENCE, UNKNOWN):
            raise UsageError(f"a cheat is called {row.scenario!r}, which means something else; give it another name")


def _references(rows: Sequence[Row]) -> tuple[Reference, ...]:
    found = {(row.model, row.weights, row.family, row.precision) for row in rows}
    return tuple(Reference(model=m, weights=w, family=f, precision=p) for m, w, f, p in sorted(found))


def _digest(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256(b"earmark/run\0")
    for row in rows:
        digest.update(row.to_json().encode() + b"\n")
    return digest.hexdigest()
