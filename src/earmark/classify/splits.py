"""Splits of recordings in which nothing that is tested on was trained on: no base clip, and no speaker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError

Indices = NDArray[np.intp]
Keys = Sequence[Collection[Hashable]]
"""What each row shares with others: its base clip and its speakers, the main one first."""


def purged_splits(keys: Keys, folds: int, seed: int = 0) -> Iterator[tuple[Indices, Indices]]:
    """Yield training and test rows of each fold, which share no key.

    Mixes tie most speakers of a set together, so that whole connected groups would leave one fold. Here each key has a
    fold; a row is tested in a fold that holds all of its keys, and trained on in the folds that hold none of them. So a
    mix of voices of several folds is not tested, and babble of many voices is left out.

    Args:
        keys: Keys of each row, the main one first; a row without keys stands alone.
        folds: Number of folds.
        seed: Seed of the order in which keys of equal weight are dealt out.

    Yields:
        Indices of training and test rows; folds without either are left out.

    Example:
        >>> keys = [["a"], ["a", "b"], ["b"], ["c"]]
        >>> [(train.tolist(), test.tolist()) for train, test in purged_splits(keys, 3)]
        [([2, 3], [0]), ([0, 1, 2], [3]), ([0, 3], [2])]
    """
    own = [list(row) or [("row", i)] for i, row in enumerate(keys)]
    fold_of = _deal(own, folds, seed)
    touched = [{fold_of[key] for key in row} for row in own]
    for fold in range(folds):
        train = np.asarray([i for i, found in enumerate(touched) if fold not in found], np.intp)
        test = np.asarray([i for i, found in enumerate(touched) if found == {fold}], np.intp)
        if len(train) and len(test):
            yield train, test


def _deal(keys: Keys, folds: int, seed: int) -> dict[Hashable, int]:
    """Return the fold of each key: main keys by falling weight to the lightest fold, others to that of their row."""
    weight = Counter(row[0] for row in map(list, keys))
    names = list(weight)
    order = np.random.default_rng(seed).permutation(len(names))
    loads, found = [0] * folds, {}
    for i in sorted(order.tolist(), key=lambda i: -weight[names[i]]):
        found[names[i]] = loads.index(min(loads))
        loads[found[names[i]]] += weight[names[i]]
    for row in sorted(map(list, keys), key=len):  # a clip follows its speaker, not a mix that it is part of
        for key in row[1:]:
            found.setdefault(key, found[row[0]])
    return found


def check_apart(keys: Keys, train: Indices, test: Indices) -> None:
    """Check that training and test rows share no key.

    Raises:
        UsageError: They do; the message names what leaks.

    Example:
        >>> check_apart([["a"], ["b"]], np.array([0]), np.array([1]))
    """
    shared = {key for i in train for key in keys[i]} & {key for i in test for key in keys[i]}
    if shared:
        names = ", ".join(sorted(map(str, shared))[:5])
        raise UsageError(f"training and test rows share {names}; a base clip or speaker belongs to one side")
