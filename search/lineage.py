"""Which weights a child may begin its folds with: the search's side of leak-safe inheritance (decision 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.trial import Rung, Trial


def inherited_from(parent: Trial, ladder: Sequence[Rung]) -> dict[str, Any]:
    """Return `Trial.inherit` of a child: for each fold the parent's fold whose weights it begins with.

    That is the same fold where the parent completed it, else the latest earlier one: folds are numbered in time order,
    so its training window ended earlier. A fold for which the parent has neither begins with initial weights. The
    worker checks every pair against the times of the folds and refuses what would leak.

    Args:
        parent: With the complete folds that it has when the child is proposed.
        ladder: Rungs of the child.
    """
    complete = parent.by_fold()
    pairs = []
    for fold in sorted({rung.fold for rung in ladder}):
        earlier = [known for known in complete if known <= fold]
        if earlier:
            pairs.append([fold, max(earlier)])
    return {"trial_id": parent.trial_id, "folds": pairs}


def ancestors(trials: Mapping[str, Trial], trial_id: str) -> list[Trial]:
    """Return whose weights a trial goes back to, oldest first; empty where it began with initial ones."""
    found: list[Trial] = []
    inherit = trials[trial_id].inherit
    while inherit:
        found.append(trials[inherit["trial_id"]])
        inherit = found[-1].inherit
    return found[::-1]
