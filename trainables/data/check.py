"""`python -m trainables.data.check FILE...`: what is in data files and what is wrong with them (DATA-31).

Bars (one section per symbol), option chains and volatility files are told apart by their columns. Nothing is changed.
Files of bars of one symbol that overlap are compared: where they disagree, somebody must say which one is right.
Exit codes: 0 no error, 1 an error in at least one file, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from trainables.data.bar_findings import check_bars, guess_calendar, overlap
from trainables.data.bars import PRICES, Bars
from trainables.data.chain_findings import check_chain
from trainables.data.config import ChainConfig, DataConfig
from trainables.data.findings import Finding, Section, constant_columns, placeholder_columns, stamp
from trainables.data.readers import bars_of, column_names, existing, numbers, read_table, read_volatility
from trainables.data.sessions import usual_step_s
from trainables.data.timestamps import read_times
from trainables.data.zones import NS_PER_DAY
from trainables.errors import DataError

SAMPLE_NUMBERS = (*PRICES, "volume", "strike", "delta", "gamma", "vega", "theta", "iv", "ivr", "rsi", "maxdd")
"""Columns of flattened rows, one option at one bar (DATA-17)."""
COVERAGE_NS = 7 * NS_PER_DAY
"""Symbols whose spans differ by less are taken to cover the same time: exchanges have different holidays."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files of a command line; print a report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainables.data.check", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--timezone", help="IANA zone of naive timestamps")
    parser.add_argument("--calendar", choices=("XNYS", "CMES", "24/7"), help="default: the one that fits best")
    parser.add_argument("--session", choices=("rth", "all"), default="all")
    parser.add_argument("--rate", type=float, default=0.0, help="risk-free rate of chains, per year")
    options = parser.parse_args(arguments)
    has_errors = False
    for name in options.files:
        for section in check_file(name, options.timezone, options.calendar, options.session, options.rate):
            print(section, end="\n\n")
            has_errors |= section.has_errors
    for section in compare_files(options.files, options.timezone):
        print(section, end="\n\n")
        has_errors |= section.has_errors
    return int(has_errors)


def check_file(
    name: str, timezone: str | None = None, calendar: str | None = None, session: str = "all", rate_ann: float = 0.0
) -> tuple[Section, ...]:
    """Return a section per symbol of bars or underlying of options; one with an error where a file cannot be read."""
    try:
        path = existing(name, "FILE")
        columns = set(column_names(path))
        if {"strike", "expiry"} <= columns:
            return tuple(_chains(path, timezone, rate_ann))
        if "strike" in columns:
            return (_flat_rows(path, columns, timezone),)
        if "close" in columns and "open" in columns:
            return tuple(_bars(path, timezone, calendar, session))
        return (_volatility(path, timezone),)
    except DataError as problem:
        return (Section(title=name, facts={}, findings=(Finding(severity="error", what=str(problem)),)),)


def compare_files(names: Sequence[str], timezone: str | None = None) -> tuple[Section, ...]:
    """Return a section for each pair of files that have bars of one symbol at the same instants.

    An overlap that agrees is a note; one that disagrees in a price or a volume is an error; files without a symbol that
    agree nowhere may be of different instruments and are a warning. Files that cannot be read
    as bars are left out: `check_file` says why.
    """
    series = {name: found for name in dict.fromkeys(names) if (found := _series(name, timezone))}
    return tuple(
        Section(title=f"{Path(a).name} and {Path(b).name}: bars {symbol}".rstrip(), facts={}, findings=findings)
        for a, b in combinations(series, 2)
        for symbol in sorted(series[a].keys() & series[b].keys())
        if (findings := overlap(series[a][symbol], series[b][symbol], is_named=bool(symbol)))
    )


def _series(name: str, timezone: str | None) -> Mapping[str, Bars]:
    try:
        if not {"open", "close"} <= set(column_names(existing(name, "FILE"))):
            return {}
        return bars_of(DataConfig(source="files", bars=name, timezone=timezone))
    except DataError:
        return {}


def _bars(path: Path, timezone: str | None, calendar: str | None, session: str):  # type: ignore[no-untyped-def]
    data = DataConfig(source="files", bars=str(path), timezone=timezone)
    parts = bars_of(data)
    guess = guess_calendar(np.concatenate([bars.timestamp for bars in parts.values()]))
    settings = {"calendar": calendar or guess.calendar, "session": session}
    longest = max(parts.values(), key=len)
    if len(parts) > 1 and len(longest) > 1:
        settings["bar_seconds"] = usual_step_s(longest.timestamp, str(path))
    for symbol, bars in parts.items():
        yield check_bars(bars, f"{path.name}: bars {symbol}".rstrip(), data.model_copy(update=settings))
    ends = _coverage(parts)
    if ends:
        yield Section(title=f"{path.name}: symbols", facts={"symbols": str(len(parts))}, findings=ends)
    shared = _contracts(parts)
    if shared:
        yield Section(title=f"{path.name}: contracts", facts={"contracts": str(len(parts))}, findings=shared)


def _coverage(parts: Mapping[str, Bars]) -> tuple[Finding, ...]:
    """Name the symbols that begin after the others, or end before them, by more than a week (B26)."""
    from trainables.data.rolls import CODE

    if len(parts) < 2 or all(CODE.fullmatch(symbol) for symbol in parts):
        return ()
    spans = {symbol: (bars.timestamp.min(), bars.timestamp.max()) for symbol, bars in parts.items()}
    first, last = min(begin for begin, _ in spans.values()), max(end for _, end in spans.values())
    late = [(symbol, begin) for symbol, (begin, _) in spans.items() if begin - first > COVERAGE_NS]
    early = [(symbol, end) for symbol, (_, end) in spans.items() if last - end > COVERAGE_NS]
    return tuple(
        Finding(severity="warning", what=what, count=len(found), first=f"{found[0][0]}, {stamp(found[0][1])}")
        for what, found in (("symbols that begin after the file does", late), ("symbols that end before it", early))
        if found
    )


def _contracts(parts) -> tuple[Finding, ...]:  # type: ignore[no-untyped-def]
    from trainables.data.rolls import CODE

    if len(parts) < 2 or not all(CODE.fullmatch(symbol) for symbol in parts):
        return ()
    times, counts = np.unique(np.concatenate([bars.timestamp for bars in parts.values()]), return_counts=True)
    if not (counts > 1).any():
        return ()
    what = f"instants with up to {counts.max()} contracts at once; set data.roll to trade the busiest"
    first = stamp(times[counts > 1][0])
    return (Finding(severity="warning", what=what, count=int((counts > 1).sum()), first=first),)


def _chains(path: Path, timezone: str | None, rate_ann: float):  # type: ignore[no-untyped-def]
    table = read_table(path, ("timestamp",), ("underlying",))
    names = [None]
    if "underlying" in table.column_names:
        names = sorted(str(name) for name in table["underlying"].unique().to_pylist())
    for name in names:
        settings = ChainConfig(path=str(path), underlying=name)
        try:
            yield check_chain(settings, timezone, rate_ann, f"{path.name}: options {name or ''}".rstrip())
        except DataError as problem:
            yield Section(
                title=f"{path.name}: {name}", facts={}, findings=(Finding(severity="error", what=str(problem)),)
            )


def _flat_rows(path: Path, columns: set[str], timezone: str | None) -> Section:
    """Check rows that hold a bar and one option of it each (DATA-17)."""
    present = [name for name in SAMPLE_NUMBERS if name in columns]
    table = read_table(path, ("timestamp",), present)
    times = read_times(table["timestamp"], zone=timezone, where=str(path), now_ns=time.time_ns())
    values = {name: numbers(table, name, path) for name in present}
    facts = {"rows": f"{len(times):,}", "span": f"{stamp(times.min())} to {stamp(times.max())}"}
    bad = [
        Finding(severity="error", what=f"{name} is not finite", count=int((~np.isfinite(column)).sum()))
        for name, column in values.items()
        if not np.isfinite(column).all()
    ]
    return Section(title=f"{path.name}: rows", facts=facts, findings=(*bad, *placeholder_columns(values)))


def _volatility(path: Path, timezone: str | None) -> Section:
    times, values = read_volatility(DataConfig(source="files", iv=str(path), timezone=timezone))
    facts = {
        "rows": f"{len(times):,}",
        "span": f"{stamp(times[0])} to {stamp(times[-1])}",
        "values": f"{values.min():.4f} to {values.max():.4f}, median {np.median(values):.4f} (annual decimal)",
    }
    return Section(title=f"{path.name}: volatility", facts=facts, findings=constant_columns({"volatility": values}))


if __name__ == "__main__":
    sys.exit(main())
