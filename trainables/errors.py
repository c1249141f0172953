"""Errors of the trainables.

DataError(ValueError)          the market, its labels or its folds cannot be used      -> exit 3
TrialDiverged(RuntimeError)    training left the finite numbers (`trainables.protocol`)
"""

from __future__ import annotations


class DataError(ValueError):
    """The data cannot be used as they are. One line: where, expected, found, what to do.

    Args:
        message: The whole line, beginning with the file or the setting.
    """
