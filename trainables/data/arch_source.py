"""Daily bars of S&P 500 and NASDAQ, and the VIX, as the `arch` package ships them: real data without a download.

Read without importing `arch`, which would take statsmodels with it: the planner answers in two seconds.
Sessions run from 09:30 to 16:00 New York; half days close earlier, which the files do not say; 16:00 is the safe side.
"""

from __future__ import annotations

import gzip
from datetime import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from trainables.data.readers import Bars, digest
from trainables.data.volatility import Volatility
from trainables.data.zones import instants
from trainables.errors import DataError

FILES = {"arch_sp500": "sp500/sp500.csv.gz", "arch_nasdaq": "nasdaq/nasdaq.csv.gz"}
VIX_FILE = "vix/vix.csv.gz"
OPEN, CLOSE = time(9, 30), time(16)
VIX_KNOWN = time(16, 15)
"""The index is computed until 16:15 New York: the value of a day is not known at that day's 16:00 close."""
DATE_FORMAT = "%m/%d/%Y"


def read_daily_bars(source: str) -> tuple[Bars, NDArray[np.int64], str]:
    """Return bars stamped with their session's open, their known times (its close), ns UTC, and the file's digest.

    Args:
        source: `arch_sp500` or `arch_nasdaq`.

    Raises:
        DataError: The package or its file is not there.
    """
    path = _shipped(FILES[source])
    table = _read(path)
    days = _days(table["Date"])
    prices = {name: table[name.capitalize()].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    bars = Bars(timestamp=instants(days, OPEN), **{name: v.astype(np.float64) for name, v in prices.items()})
    return bars, instants(days, CLOSE), digest(str(path))


def read_vix() -> tuple[Volatility, str]:
    """Return the VIX as annual decimals, each known from 16:15 New York of its day, and the file's digest."""
    path = _shipped(VIX_FILE)
    table = _read(path)
    known = instants(_days(table["Date"]), VIX_KNOWN)
    return Volatility(known_time=known, value=table["vix"].to_numpy() / 100), digest(str(path))


def _shipped(name: str) -> Path:
    package = find_spec("arch")
    path = Path(package.origin).parent / "data" / name if package and package.origin else None
    if path is None or not path.is_file():
        raise DataError(f"data.source: expected the arch package with its {name}, found none; install arch>=8")
    return path


def _read(path: Path) -> pa.Table:
    with gzip.open(path, "rb") as file:
        return pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types={"Date": pa.string()}))


def _days(column: pa.ChunkedArray) -> NDArray[np.int64]:
    stamps = pa.compute.strptime(column, format=DATE_FORMAT, unit="s")
    return stamps.cast(pa.int64()).to_numpy() // 86_400
