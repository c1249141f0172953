"""Linear algebra on one thread: matrices of a few hundred rows are too small to share.

On a machine whose cores are busy the threads of a small product wait for each other: a proposal then takes a hundred
times as long. And one number of threads gives one result, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(act: Callable[P, R]) -> Callable[P, R]:
    """Make a function run with one thread of linear algebra, whatever the process has."""

    @wraps(act)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _libraries().limit(limits=1, user_api="blas"):
            return act(*args, **kwargs)

    return limited


@lru_cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that are loaded, found once: looking for them takes a millisecond."""
    return ThreadpoolController()
