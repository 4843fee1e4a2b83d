"""Naming deployments: from the fingerprints of many recordings to a classifier, and from one fingerprint to a name.

    import earmark.classify
    from earmark.runs import Run

    classifier = earmark.classify.train(Run.read("run.jsonl"))
    print(classifier.header.figures)
    print(classifier.classify(verdict))

It needs scikit-learn and, to save and load, skops: `pip install earmark[classify]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earmark.classify.classifier import Classifier, Naming, load
    from earmark.classify.estimator import DeploymentClassifier
    from earmark.classify.evidence import without_replay
    from earmark.classify.features import Table, table
    from earmark.classify.figures import Figures, Rate
    from earmark.classify.splits import purged_splits
    from earmark.classify.training import train

_HOMES = {
    "Classifier": "classifier",
    "DeploymentClassifier": "estimator",
    "Figures": "figures",
    "Naming": "classifier",
    "Rate": "figures",
    "Table": "features",
    "load": "classifier",
    "purged_splits": "splits",
    "table": "features",
    "train": "training",
    "without_replay": "evidence",
}

__all__ = [
    "Classifier",
    "DeploymentClassifier",
    "Figures",
    "Naming",
    "Rate",
    "Table",
    "load",
    "purged_splits",
    "table",
    "train",
    "without_replay",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark.classify' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"earmark.classify.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
