"""The contracts that families and models keep, ours and third parties': plain functions, no test tool needed.

`check_family` and `check_model` raise `AssertionError` with what was found, what was expected and what to do; they
run in any test tool, or by hand:

    from earmark.testing import check_family, check_model

    check_model(model, loader=loader, folder=folder)
    check_family(family, model)
"""

from earmark.testing._loader import LOADER_CONTRACTS
from earmark.testing.bench import Bench, default_clips
from earmark.testing.damage import VALUES, damage, flip, mutated_evidence, mutated_traces
from earmark.testing.family import FAMILY_CONTRACTS, check_family
from earmark.testing.model import MODEL_CONTRACTS, check_model

__all__ = [
    "FAMILY_CONTRACTS",
    "LOADER_CONTRACTS",
    "MODEL_CONTRACTS",
    "VALUES",
    "Bench",
    "check_family",
    "check_model",
    "damage",
    "default_clips",
    "flip",
    "mutated_evidence",
    "mutated_traces",
]
