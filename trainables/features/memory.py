"""What a computation over bars remembers, so that it can go on with the bars that follow (EXEC-3).

In batch nothing is remembered: a function gets all bars. `trainables.features.streaming` runs the very same functions
on the new bars alone, with a `Memory` active. Everything that looks back then asks for one of two things:

- `remembered`: an array that it changes in place: the few numbers that its recursion carries, or the last rows of its
  input, where row j < 0 of the block is row j counted from their end, and which `keep_rows` moves on;
- `earlier_rows`: its input with the last rows before it in front, for functions that know nothing of blocks.

Both are matched by the order of the calls, which is the same for every block of bars of a schema. Positions of runs
(`first`) are relative to the block: negative where the run began before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")
Int = NDArray[np.int64]


class Memory:
    """What the calls of one computation remember, in their order.

    Attributes:
        slots: One entry per call that looks back.
        n_rows: Rows seen before the current block.
    """

    def __init__(self) -> None:
        self.slots: list[Any] = []
        self.n_rows = 0
        self._cursor = 0

    def slot(self, fresh: Callable[[], Any]) -> Any:
        """Return what the call at this place remembers, `fresh()` where the computation is there for the first time."""
        if self._cursor == len(self.slots):
            self.slots.append(fresh())
        self._cursor += 1
        return self.slots[self._cursor - 1]

    @contextmanager
    def block(self, n_rows: int) -> Iterator[None]:
        """Be the active memory for the next `n_rows` rows.

        Raises:
            RuntimeError: The block made fewer calls than the first one: a function that looks back was left out.
        """
        self._cursor = 0
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)
        if self._cursor != len(self.slots):
            raise RuntimeError(f"memory: expected {len(self.slots)} calls that look back, found {self._cursor}")
        self.n_rows += n_rows


_ACTIVE: ContextVar[Memory | None] = ContextVar("memory", default=None)


def active() -> Memory | None:
    """Return the memory of the computation that runs; none in batch."""
    return _ACTIVE.get()


@contextmanager
def in_batch() -> Iterator[None]:
    """Compute as if nothing had been before: for functions that are given all the bars that they need."""
    token = _ACTIVE.set(None)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def remembered(*shape: int, dtype: type = float) -> NDArray[Any]:
    """Return the numbers that this call left behind, zeros at first and in batch; change them in place."""
    memory = active()
    return np.zeros(shape, dtype) if memory is None else memory.slot(lambda: np.zeros(shape, dtype))


@numba.njit(cache=True, nogil=True)
def keep_rows(x: NDArray[np.float64], earlier: NDArray[np.float64]) -> None:
    """Make `earlier` the last rows up to the end of a block.

    Passes read them in their own loops: numba counts references to every array that a call in a loop is given, which
    costs more than the loop.
    """
    n, kept = len(x), len(earlier)
    for k in range(kept):
        earlier[k] = earlier[k + n] if k + n < kept else x[n - kept + k]


def earlier_rows(first: Int, n_rows: int, *arrays: NDArray[Any]) -> tuple[tuple[NDArray[Any], ...], Int, int]:
    """Return the arrays with the rows before them put in front.

    Args:
        first: (n,) start of each row's run.
        n_rows: How many earlier rows are needed; fewer at the start of all.
        *arrays: (n,) each.

    Returns:
        The longer arrays, `first` for them, and the position of the first new row; in batch the input and 0.
    """
    memory = active()
    if memory is None:
        return arrays, first, 0
    kept = memory.slot(lambda: {"rows": tuple(x[:0] for x in (first, *arrays))})
    absolute, *rows = (
        np.concatenate(pair) for pair in zip(kept["rows"], (first + memory.n_rows, *arrays), strict=True)
    )
    n_old = len(absolute) - len(first)
    cut = max(len(absolute) - n_rows, 0)
    kept["rows"] = tuple(x[cut:].copy() for x in (absolute, *rows))
    return tuple(rows), absolute - (memory.n_rows - n_old), n_old


def windowed(n_series: int, n_rows: Callable[..., int]) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make a function of a window go on from block to block.

    Args:
        n_series: The function is called as f(*series, first, *numbers) with so many series.
        n_rows: Earlier rows that a value depends on, given the numbers.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        @wraps(function)
        def go_on(*args: Any) -> Result:
            if active() is None:
                return function(*args)
            first, numbers = args[n_series], args[n_series + 1 :]
            arrays, first, start = earlier_rows(first, n_rows(*numbers), *args[:n_series])
            found: Any = function(*arrays, np.maximum(first, 0), *numbers)
            return tuple(x[start:] for x in found) if isinstance(found, tuple) else found[start:]  # type: ignore[return-value]

        return go_on

    return decorate


def at_start(x: NDArray[Any], first: Int) -> NDArray[Any]:
    """Return for each row the value of x at the first row of its run."""
    memory = active()
    if memory is None:
        return x[first]
    kept = memory.slot(lambda: {"value": x[:1]})
    values = np.where(first >= 0, x[np.maximum(first, 0)], kept["value"])
    kept["value"] = values[-1:].copy()
    return values


def run_starts(*numbers: NDArray[Any]) -> Int:
    """Return for each position where its run of equal numbers began.

    Args:
        *numbers: (n,) each; a new run starts where any of them changes.

    Returns:
        (n,) int64 positions, relative to the first row given; negative where the run began before it.
    """
    n, memory = len(numbers[0]), active()
    if memory is None or not n:
        return _starts_of_any(numbers, 0)
    kept = memory.slot(lambda: {"numbers": None, "start": 0})
    goes_on = kept["numbers"] == [number[0] for number in numbers]
    starts = _starts_of_any(numbers, kept["start"] - memory.n_rows if goes_on else 0)
    kept["numbers"], kept["start"] = [number[-1] for number in numbers], memory.n_rows + int(starts[-1])
    return starts


def _starts_of_any(numbers: tuple[Int, ...], start: int) -> Int:
    starts = _run_starts(numbers[0], numbers[-1], start)
    for number in numbers[1:-1]:
        starts = np.maximum(starts, _run_starts(number, number, start))
    return starts


@numba.njit(cache=True, nogil=True)
def _run_starts(one: Int, other: Int, start: int) -> Int:
    """Return where the run of each row began, `start` being where that of the first row did."""
    starts = np.empty(len(one), dtype=np.int64)
    for i in range(len(one)):
        if i > 0 and (one[i] != one[i - 1] or other[i] != other[i - 1]):
            start = i
        starts[i] = start
    return starts


def running_max(x: Int) -> Int:
    """Return the largest value so far."""
    memory = active()
    if memory is None:
        return np.maximum.accumulate(x)
    largest = memory.slot(lambda: x[:1].copy())
    found = np.maximum(np.maximum.accumulate(x), largest)
    largest[:] = found[-1:]
    return found


def last_finite(x: NDArray[np.float64], first: Int) -> NDArray[np.float64]:
    """Return the run's last finite value at or before each row, NaN before the first."""
    return _last_finite(x, first, remembered(2))


@numba.njit(cache=True, nogil=True)
def _last_finite(x: NDArray[np.float64], first: Int, state: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty(len(x))
    has_one, value = state
    for i in range(len(x)):
        if first[i] == i:
            has_one = 0.0
        if np.isfinite(x[i]):
            has_one, value = 1.0, x[i]
        out[i] = value if has_one else np.nan
    state[0], state[1] = has_one, value
    return out
