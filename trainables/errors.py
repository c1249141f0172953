"""Errors of the trainables.

DataError(ValueError)          the market, its labels or its folds cannot be used      -> exit 3
  DataChanged                  they are no longer those that the search began with     -> exit 4
LeakError(ValueError)          weights would carry knowledge of later rows into a fold
TrialDiverged(RuntimeError)    training left the finite numbers (`trainables.protocol`)
"""

from __future__ import annotations


class DataError(ValueError):
    """The data cannot be used as they are. One line: where, expected, found, what to do.

    Args:
        message: The whole line, beginning with the file or the setting.
    """


class LeakError(ValueError):
    """Weights of a fold are asked for in one that is scored on rows which they have seen (decision 5)."""


class DataChanged(DataError):
    """The data are not those that the trials before were trained on: nothing may be compared any more."""
