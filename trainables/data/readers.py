"""Bars and volatility series from Parquet and CSV files, with every timestamp as ns UTC.

Rows are counted from 1 in messages, without the header; where a symbol is named, among its rows alone. Nothing is
guessed about time: ISO-8601 text, Arrow timestamps or integer nanoseconds, and a zone in the data or declared. Nothing
is repaired: see `validation` for what is wrong.
"""

from __future__ import annotations

import csv
import difflib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars
from trainables.data.config import DataConfig
from trainables.data.text_cache import parsed_once
from trainables.data.timestamps import read_times
from trainables.errors import DataError

ALIASES = {"timestamp": ("timestamp", "datetime", "date", "time", "dt")}
"""Other names under which a column is known; every other column has only its own."""
HEADERLESS = ("timestamp", *PRICES, "volume")
"""Columns of a text file without a header (DATA-6)."""
TEXTS = ("timestamp", "symbol", "underlying", "expiry", "type", "event_time", "release_time")
"""Columns that are read as text; all others hold numbers."""
DELIMITERS = (",", "\t", ";", "|")


def read_bars(data: DataConfig, *, keep: bool = False) -> Bars:
    """Read the file of `data.bars`: timestamp, open, high, low, close, and where there are any volume and symbol.

    Args:
        data: Names the file.
        keep: Keep the columns of a text file as Parquet beside it, so that it is parsed once (DATA-28).

    Raises:
        DataError: The file is missing, empty, cut or not a table; a column is missing or not a number; timestamps are
            not instants; there are several symbols and none is chosen.
    """
    path = existing(data.bars, "data.bars")
    table = _one_symbol(read_table(path, ("timestamp", *PRICES), ("volume", "symbol"), keep=keep), data.symbol, path)
    return _bars(table, data, path, data.symbol)


def read_contracts(data: DataConfig, *, keep: bool = False) -> dict[str, Bars]:
    """Read the bars of every contract in the file of `data.bars`, by symbol; `data.symbol` is what symbols begin with.

    `keep` is that of `read_bars`.

    Raises:
        DataError: As `read_bars`; or there is no column symbol, or no symbol that begins so.
    """
    path = existing(data.bars, "data.bars")
    table = read_table(path, ("timestamp", *PRICES, "symbol"), ("volume",), keep=keep)
    symbols = table["symbol"].cast(pa.string())
    present = sorted(str(s) for s in symbols.unique().to_pylist())
    wanted = [s for s in present if s.startswith(data.symbol or "")]
    if not wanted:
        raise DataError(
            f"data.symbol: expected the beginning of one of {', '.join(present[:8])}, found {data.symbol!r}; correct it"
        )
    return {s: _bars(table.filter(pa.compute.equal(symbols, s)), data, path, s) for s in wanted}


def bars_of(data: DataConfig) -> dict[str, Bars]:
    """Read the bars of every symbol in the file of `data.bars`; one without a column symbol has the name "".

    Raises:
        DataError: As `read_bars`.
    """
    path = existing(data.bars, "data.bars")
    if "symbol" in column_names(path):
        return read_contracts(data)
    return {"": read_bars(data)}


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns, in lower case and under our own names.

    Raises:
        DataError: The file is no table.
    """
    with _whole(path):
        if _is_parquet(path):
            with pq.ParquetFile(path) as file:
                found = list(file.schema_arrow.names)
        else:
            found, _, _ = _header(path)
    ours = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    return tuple(ours.get(name.strip().lower(), name.strip().lower()) for name in found)


def _bars(table: pa.Table, data: DataConfig, path: Path, symbol: str | None) -> Bars:
    where = f"{path}, {symbol}" if symbol else str(path)
    times = read_times(table["timestamp"], zone=data.timezone, where=where, now_ns=time.time_ns())
    prices = {name: numbers(table, name, path) for name in PRICES}
    has_volume = "volume" in table.column_names
    volume = numbers(table, "volume", path) if has_volume else np.full(len(times), np.nan)
    return Bars(timestamp=times, volume=volume, **prices)


def read_volatility(data: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the file of `data.iv`: timestamps (ns UTC, increasing) and volatility as an annual decimal.

    The column is `vix`, `iv` or else `close`, in percent, as volatility indices are quoted.

    Raises:
        DataError: As for bars; or a value is not a finite number above zero, or times do not increase.
    """
    path = existing(data.iv, "data.iv")
    table = read_table(path, ("timestamp",), ("vix", "iv", "close"))
    name = next((n for n in ("vix", "iv", "close") if n in table.column_names), None)
    if name is None:
        raise DataError(f"{path}: expected a column vix, iv or close, found none; name the one that holds percent")
    times = read_times(table["timestamp"], zone=data.timezone, where=str(path), now_ns=time.time_ns())
    values = numbers(table, name, path)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{path}: row {row + 1}: expected {name} above zero, found {values[row]} ({bad.sum()} rows); take them out"
        )
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        raise DataError(f"{path}: row {late[0] + 2}: expected a later timestamp than the row before; sort the file")
    return times, values / 100


def existing(name: str | None, setting: str) -> Path:
    """Return the path of a file that a setting names; raises DataError where there is none or it is empty."""
    if name is None:
        raise DataError(f"{setting}: expected the path of a Parquet or CSV file, found none; set it, or another source")
    path = Path(name)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{setting}: expected a Parquet or CSV file, found {what}: {name}; correct the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: expected rows, found an empty file; replace it")
    return path


def read_table(path: Path, required: Sequence[str], optional: Sequence[str], *, keep: bool = False) -> pa.Table:
    """Read the wanted columns under their own names; `keep` is that of `read_bars`.

    Raises:
        DataError: See `read_bars`.
    """
    with _whole(path):
        if _is_parquet(path):
            table = _read_parquet(path, required, optional)
        elif keep:
            table = parsed_once(path, (required, optional), lambda: _read_text(path, required, optional))
        else:
            table = _read_text(path, required, optional)
    if table.num_rows == 0:
        raise DataError(f"{path}: expected rows, found a header only; replace it")
    return table


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into one line."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as problem:
        first = str(problem).splitlines()[0].rstrip(".")
        raise DataError(f"{path}: expected a whole Parquet or CSV file, found: {first}; fetch it again") from None


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")


def _read_parquet(path: Path, required: Sequence[str], optional: Sequence[str]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        names = _match(file.schema_arrow.names, required, optional, path)
        return file.read(columns=list(names)).select(list(names)).rename_columns(list(names.values()))


def _read_text(path: Path, required: Sequence[str], optional: Sequence[str]) -> pa.Table:
    found, delimiter, has_header = _header(path)
    names = _match(found, required, optional, path)
    types = {old: pa.string() if new in TEXTS else pa.float64() for old, new in names.items()}

    def read(column_types: dict[str, pa.DataType]) -> pa.Table:
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=None if has_header else found),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types=column_types, include_columns=list(names), strings_can_be_null=False
            ),
        )

    try:
        table = read(types)
    except pa.ArrowInvalid:
        _raise_first_bad_number(read(dict.fromkeys(names, pa.string())).rename_columns(list(names.values())), path)
        raise
    return table.rename_columns(list(names.values()))


def _header(path: Path) -> tuple[list[str], str, bool]:
    """Return the names of a text file's columns, its delimiter, and whether it has a header."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first_line = file.readline()
    delimiter = max(DELIMITERS, key=first_line.count)
    cells = next(csv.reader([first_line], delimiter=delimiter))
    has_header = not cells[0].strip()[:1].isdigit()
    if not has_header and len(cells) not in (len(HEADERLESS) - 1, len(HEADERLESS)):
        raise DataError(
            f"{path}: expected a header, or {', '.join(HEADERLESS)}, found {len(cells)} columns; add a header"
        )
    found = cells if has_header else list(HEADERLESS[: len(cells)])
    return found, delimiter, has_header


def _match(found: Sequence[str], required: Sequence[str], optional: Sequence[str], path: Path) -> dict[str, str]:
    """Return name in the file -> our name, ignoring case.

    Raises:
        DataError: A required column is missing (the nearest name is offered) or there twice.
    """
    lower = [name.strip().lower() for name in found]
    names = {}
    for wanted in (*required, *optional):
        places = [i for alias in ALIASES.get(wanted, (wanted,)) for i, name in enumerate(lower) if name == alias]
        if not places and wanted in required:
            near = difflib.get_close_matches(wanted, lower, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{path}: expected a column {wanted}, found {', '.join(found)}{hint}; rename it")
        if len(places) > 1 and lower[places[0]] == lower[places[1]]:
            raise DataError(f"{path}: expected one column {wanted}, found it twice; rename one")
        if places:
            names[found[places[0]]] = wanted
    return names


def _raise_first_bad_number(texts: pa.Table, path: Path) -> None:
    """Name the first cell that is not a number."""
    for name in texts.column_names:
        if name in TEXTS:
            continue
        for row, text in enumerate(texts[name].to_pylist()):
            try:
                float(text or "nan")
            except ValueError:
                raise DataError(
                    f"{path}: row {row + 1}: expected {name} as a number, found {text!r}; write 1000.5"
                ) from None


def numbers(table: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    """Return a column as float64, NaN where there is nothing; raises DataError where it holds no numbers."""
    column = table[name]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise DataError(f"{path}: expected {name} as numbers, found {column.type}; convert the column")
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False) if column.null_count == 0 else _with_nulls(column)


def _with_nulls(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return column.cast(pa.float64()).fill_null(float("nan")).to_numpy()


def _one_symbol(table: pa.Table, symbol: str | None, path: Path) -> pa.Table:
    """Keep the rows of the chosen symbol; a file of one symbol needs no choice."""
    if "symbol" not in table.column_names:
        if symbol is not None:
            raise DataError(f"data.symbol: expected a column symbol in {path} for {symbol!r}, found none; leave it out")
        return table
    present = sorted(str(s) for s in table["symbol"].unique().to_pylist())
    shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "")
    if symbol is None and len(present) > 1:
        raise DataError(f"{path}: expected one symbol, found {len(present)} ({shown}); set data.symbol")
    if symbol is not None and symbol not in present:
        near = difflib.get_close_matches(symbol, present, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"data.symbol: expected one of {shown}, found {symbol!r}{hint}")
    if len(present) == 1:
        return table
    return table.filter(pa.compute.equal(table["symbol"].cast(pa.string()), symbol))
