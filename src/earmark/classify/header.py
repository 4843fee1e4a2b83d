"""The header of a classifier: everything that people read, strict at the border."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.classify.features import Features
from earmark.classify.figures import Figures
from earmark.records.codec import Count, Digest, Name, Record
from earmark.records.profile import Share


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reference whose deployments a classifier knows.

    Attributes:
        model: Name, for people.
        weights: Digest of its weights; empty in made-up runs.
        family: Its family.
        precision: Claimed precision.
    """

    model: Name
    weights: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
    family: Name
    precision: Name


class Header(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a classifier that people read; the estimator lies beside it.

    Attributes:
        fingerprint_version: Version of the statistics.
        shape_version: Version of the shape.
        features: Kind of the features.
        names: Features, in order.
        classes: Known deployments.
        references: Models whose deployments they are.
        level: Level of the evidence.
        refuse: Share of rows of known deployments that may be called unknown; of the reference a tenth of it.
        rows: Rows that were trained on.
        clips: Base clips that they come from.
        excluded: Deployments that were tested and not trained on.
        run: Digest of the rows.
        estimator: SHA-256 of the estimator's file.
        figures: Results of the cross-validation.
        importance: Fall of balanced accuracy when a feature is shuffled, largest first.
        provenance: Seed, versions and command.
    """

    FORMAT: ClassVar[str] = "earmark.classifier/2"

    format: Literal["earmark.classifier/2"] = "earmark.classifier/2"
    fingerprint_version: int
    shape_version: int
    features: Features
    names: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=4096)]
    classes: Annotated[tuple[Name, ...], msgspec.Meta(min_length=2, max_length=256)]
    references: Annotated[tuple[Reference, ...], msgspec.Meta(min_length=1, max_length=64)]
    level: Name
    refuse: Share
    rows: Count
    clips: Count
    excluded: tuple[Name, ...] = ()
    run: Digest
    estimator: Digest
    figures: Figures
    importance: dict[str, float] = msgspec.field(default_factory=dict)
    provenance: dict[str, str] = msgspec.field(default_factory=dict)
