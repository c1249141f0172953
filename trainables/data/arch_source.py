"""Daily bars of S&P 500 and NASDAQ, and the VIX, as the `arch` package ships them: real data without a download.

Read without importing `arch`, which would take statsmodels with it: the planner answers in two seconds.
Sessions run from 09:30 to 16:00 New York; half days close earlier, which the files do not say; 16:00 is the safe side.
"""

from __future__ import annotations

import csv
import gzip
from datetime import date, time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars, digest
from trainables.data.volatility import Volatility
from trainables.data.zones import instants
from trainables.errors import DataError

FILES = {"arch_sp500": "sp500/sp500.csv.gz", "arch_nasdaq": "nasdaq/nasdaq.csv.gz"}
VIX_FILE = "vix/vix.csv.gz"
OPEN, CLOSE = time(9, 30), time(16)
VIX_KNOWN = time(16, 15)
"""The index is computed until 16:15 New York: the value of a day is not known at that day's 16:00 close."""
NO_VALUE = "."
"""What the VIX file has on holidays; such days are left out, so that the value before stays the newest known."""


def read_daily_bars(source: str) -> tuple[Bars, NDArray[np.int64], str]:
    """Return bars stamped with their session's open, their known times (its close), ns UTC, and the file's digest.

    Args:
        source: `arch_sp500` or `arch_nasdaq`.

    Raises:
        DataError: The package or its file is not there.
    """
    path = _shipped(FILES[source])
    header, rows = _read(path)
    days = _days(rows)
    prices = {name: _column(header, rows, name.capitalize()) for name in (*PRICES, "volume")}
    return Bars(timestamp=instants(days, OPEN), **prices), instants(days, CLOSE), digest(str(path))


def read_vix() -> tuple[Volatility, str]:
    """Return the VIX as annual decimals, each known from 16:15 New York of its day, and the file's digest."""
    path = _shipped(VIX_FILE)
    header, rows = _read(path)
    rows = [row for row in rows if row[header.index("vix")] != NO_VALUE]
    value = _column(header, rows, "vix") / 100
    return Volatility(known_time=instants(_days(rows), VIX_KNOWN), value=value), digest(str(path))


def _shipped(name: str) -> Path:
    package = find_spec("arch")
    path = Path(package.origin).parent / "data" / name if package and package.origin else None
    if path is None or not path.is_file():
        raise DataError(f"data.source: expected the arch package with its {name}, found none; install arch>=8")
    return path


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def _column(header: list[str], rows: list[list[str]], name: str) -> NDArray[np.float64]:
    position = header.index(name)
    return np.array([float(row[position]) for row in rows])


def _days(rows: list[list[str]]) -> NDArray[np.int64]:
    """Return the days of the first column, month/day/year, since 1970."""
    parts = ((int(n) for n in row[0].split("/")) for row in rows)
    return np.array([date(year, month, day).toordinal() for month, day, year in parts]) - date(1970, 1, 1).toordinal()
