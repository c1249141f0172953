"""What there is to say about bars: defects, gaps, sessions, prices and volumes that look wrong (DATA-13, DATA-31)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars
from trainables.data.config import DataConfig
from trainables.data.findings import Finding, Section, at_rows, constant_columns, stamp
from trainables.data.sessions import SessionRows, place, schedule, usual_step_s
from trainables.data.validation import JUMP, find_defects
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, local_day, local_time
from trainables.errors import DataError

Int = NDArray[np.int64]
SPIKE_SCALES, SPIKE_RETURN, SPIKE_WINDOW = 15.0, 0.3, 61
"""A foreign bar: a move of so many usual ones, undone by the next bar up to this share; bars that set the usual one."""
LEAST_SPIKE = 1e-3
"""Smaller moves are not called foreign, however quiet the market is."""
UNUSUAL_SHARE, UNUSUAL_SESSIONS = 0.2, 3
"""Sessions with so much more or fewer bars than the median, so many of them in a row, are a change of sampling."""
SAME_VALUE = 1e-6
"""Values of two files that differ by a smaller share are the same value, once written as float32."""
PAUSE_HOUR = 17
"""Globex rests from 17:00 to 18:00 New York on weekdays; the sessions of the calendar library run through."""
THIN_SHARE, LEAST_SESSIONS = 0.5, 20
"""A contract's first sessions are thin below this share of its median; sessions that make a median."""
TICK = 0.01
LARGE_MOVE = 0.02
HISTOGRAM_LINES = 6
CONTINUOUS = re.compile(r"[A-Z0-9]{1,3}1!?")
"""Names of continuous futures, such as NQ1!."""


def check_bars(bars: Bars, title: str, data: DataConfig) -> Section:
    """Return facts and findings of the bars of one symbol.

    Args:
        bars: As read.
        title: What the section is called; its last word is the symbol.
        data: Calendar, session, tolerance, and where they are known the seconds of a bar.
    """
    findings = list(_defects(bars, data))
    times = bars.timestamp
    facts = {"rows": f"{len(bars):,}", "span": f"{stamp(times.min())} to {stamp(times.max())}"}
    if len(bars) < 2 or (np.diff(times) <= 0).any():
        return Section(title=title, facts=facts, findings=tuple(findings))
    step = data.bar_seconds or usual_step_s(times, title)
    facts["bar"] = f"{step} s"
    if step * NS_PER_SECOND < NS_PER_DAY:
        facts |= {"calendar": f"{data.calendar} ({data.session})"}
        findings += _sessions(bars, step, data, title, facts)
    else:
        findings += _days(bars, data)
    findings += _prices(bars, title)
    findings += constant_columns({"volume": bars.volume, "close": bars.close})
    return Section(title=title, facts=facts, findings=tuple(findings))


def overlap(one: Bars, other: Bars, *, is_named: bool) -> tuple[Finding, ...]:
    """Return what two files say of the same instants: a note where they agree, an error where a value differs.

    Args:
        one: Bars of a symbol, in any order; of a timestamp that is there twice the first row counts.
        other: Bars of the same symbol from another file.
        is_named: Whether the files name the symbol; where they do not, bars that are equal nowhere are a warning only.
    """
    times, a, b = np.intersect1d(one.timestamp, other.timestamp, return_indices=True)
    if len(times) == 0:
        return ()
    differs = {
        name: ~np.isclose(getattr(one, name)[a], getattr(other, name)[b], rtol=SAME_VALUE, atol=0, equal_nan=True)
        for name in (*PRICES, "volume")
    }
    bad = np.logical_or.reduce(list(differs.values()))
    if not bad.any():
        return (Finding(severity="note", what="instants in both files, with equal bars", count=len(times)),)
    row = int(np.argmax(bad))
    name = next(name for name, where in differs.items() if where[row])
    values = f"{name} {getattr(one, name)[a[row]]:g} (row {a[row] + 1}) and {getattr(other, name)[b[row]]:g}"
    is_foreign = bad.all() and not is_named
    remedy = "name their symbols if they are of two instruments, else keep one" if is_foreign else "keep one of them"
    what = f"the files overlap in {len(times):,} instants and disagree; {remedy}"
    first = f"{stamp(times[row])}: {values} (row {b[row] + 1})"
    return (Finding(severity="warning" if is_foreign else "error", what=what, count=int(bad.sum()), first=first),)


def guess_calendar(times: Int) -> DataConfig:
    """Return a data section with the calendar that fits best: 24/7, extended hours of New York, or Globex."""
    day = local_day(times)
    is_saturday = (day + 4) % 7 == 6
    if is_saturday.mean() > 0.05:
        return DataConfig(calendar="24/7", session="all")
    clock = local_time(times) % NS_PER_DAY // (60 * NS_PER_SECOND)
    is_extended = (clock >= 4 * 60) & (clock < 20 * 60) & ((day + 4) % 7 != 0)
    if is_extended.mean() < 0.95:
        return DataConfig(calendar="CMES", session="all")
    return DataConfig(calendar="XNYS", session="all")


def _defects(bars: Bars, data: DataConfig) -> list[Finding]:
    found = []
    for defect in find_defects(bars, price_tolerance_frac=data.price_tolerance_frac):
        first = f"row {defect.rows[0] + 1}, {stamp(bars.timestamp[defect.rows[0]])}: {defect.example}"
        found.append(Finding(severity="error", what=f"expected {defect.expected}", count=len(defect.rows), first=first))
    return found


def _sessions(bars: Bars, step: int, data: DataConfig, title: str, facts: dict[str, str]) -> list[Finding]:
    times, step_ns = bars.timestamp, step * NS_PER_SECOND
    try:
        rows = place(times, step, data, title)
    except DataError as problem:
        return [Finding(severity="error", what=str(problem))]
    numbers, counts = np.unique(rows.number, return_counts=True)
    facts["sessions"] = f"{len(numbers):,}"
    facts["bars per session"] = _histogram(counts)
    findings = [*_outside(times, rows.kept, data), *_before_the_roll(bars, rows, title)]
    distance = np.diff(times)
    is_short = (distance > step_ns) & (distance < 3600 * NS_PER_SECOND)
    if is_short.any():
        low, high = distance[is_short].min() // step_ns, distance[is_short].max() // step_ns
        facts["gaps below an hour"] = f"{is_short.sum():,}, {low} to {high} bars apart, in sessions or not"
    gap = np.diff(rows.event_time) // step_ns - 1
    is_gap = (np.diff(rows.number) == 0) & (gap > 0)
    if is_gap.any():
        first = stamp(rows.event_time[:-1][is_gap][0])
        share = gap[is_gap].sum() / (gap[is_gap].sum() + len(rows.event_time))
        what = f"gaps within sessions, {gap[is_gap].min() + 1} to {gap[is_gap].max() + 1} bars apart"
        what += f", {gap[is_gap].sum():,} bars missing, {share:.1%}"
        findings.append(Finding(severity="warning", what=what, count=int(is_gap.sum()), first=f"after {first}"))
    missing = np.setdiff1d(np.arange(numbers[0], numbers[-1] + 1), numbers)
    plan = schedule(data, int(times[0]), int(times[-1]))
    findings += _missing(missing, plan.day)
    findings += _sampling(numbers, counts, plan.day)
    if data.calendar == "XNYS":
        findings += _after_hours(bars, step, data)
    findings += _ends(bars, rows, step_ns, data)
    return findings


def _outside(times: Int, kept: NDArray[np.bool_], data: DataConfig) -> list[Finding]:
    """Find bars out of hours: by the clock, and by the calendar, which may lack a day or end one too early."""
    outside, weekend = ~kept, _is_weekend(times)
    other = outside & ~weekend
    days, counts = np.unique(local_day(times[other]), return_counts=True)
    listed = ", ".join(f"{day.astype('datetime64[D]')}: {n}" for day, n in zip(days, counts, strict=True))
    shown = listed if len(days) <= HISTOGRAM_LINES else f"{len(days)} days"
    findings = [
        *at_rows("warning", "bars outside of every session, at a weekend", outside & weekend, times),
        *at_rows("warning", f"bars outside of every session, on holidays or after a close ({shown})", other, times),
    ]
    if data.calendar == "CMES":
        hour = local_time(times) % NS_PER_DAY // (3600 * NS_PER_SECOND)
        paused = kept & (hour == PAUSE_HOUR)
        what = f"bars in the hour from {PAUSE_HOUR}:00 New York, when Globex pauses since 2015; the calendar keeps them"
        findings += at_rows("warning", what, paused, times)
    return findings


def _before_the_roll(bars: Bars, rows: SessionRows, title: str) -> tuple[Finding, ...]:
    """Find first sessions of a contract that were traded little: another one may have been in front."""
    from trainables.data.rolls import CODE

    number = np.unique(rows.number, return_inverse=True)[1]
    volume = np.bincount(number, weights=np.nan_to_num(bars.volume[rows.kept]))
    if not CODE.fullmatch(title.split()[-1]) or len(volume) < LEAST_SESSIONS:
        return ()
    n_thin = int(np.argmax(volume >= THIN_SHARE * np.median(volume)))
    what = f"first sessions with under {THIN_SHARE:.0%} of the usual volume: another contract may have been in front"
    return (Finding(severity="note", what=what, count=n_thin, first=stamp(bars.timestamp[0])),) if n_thin else ()


def _is_weekend(times: Int) -> NDArray[np.bool_]:
    """Return where Globex rests: from Friday 17:00 to Sunday 18:00, New York."""
    weekday, hour = (local_day(times) + 4) % 7, local_time(times) % NS_PER_DAY // (3600 * NS_PER_SECOND)
    return (weekday == 6) | ((weekday == 5) & (hour >= 17)) | ((weekday == 0) & (hour < 18))


def _histogram(counts: Int) -> str:
    values, often = np.unique(counts, return_counts=True)
    if len(values) <= HISTOGRAM_LINES:
        return ", ".join(f"{n} x {value}" for value, n in zip(values, often, strict=True))
    quantiles = np.quantile(counts, (0, 0.05, 0.5, 0.95, 1)).astype(int)
    usual = values[np.argmax(often)]
    shown = ", ".join(f"{name} {q}" for name, q in zip(("min", "5%", "median", "95%", "max"), quantiles, strict=True))
    return f"{shown}; most often {usual} ({often.max()} sessions)"


def _missing(missing: Int, days: Int) -> tuple[Finding, ...]:
    if len(missing) == 0:
        return ()
    first = str(days[missing[0]].astype("datetime64[D]"))
    return (
        Finding(severity="warning", what="sessions of the calendar without a bar", count=len(missing), first=first),
    )


def _sampling(numbers: Int, counts: Int, days: Int) -> tuple[Finding, ...]:
    """Find the longest run of sessions with many more, or many fewer, bars than the median."""
    usual = np.median(counts)
    found = []
    for is_unusual, word in (
        (counts > (1 + UNUSUAL_SHARE) * usual, "more"),
        (counts < (1 - UNUSUAL_SHARE) * usual, "fewer"),
    ):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], is_unusual.astype(int), [0]])))
        runs = edges.reshape(-1, 2)
        if len(runs) == 0:
            continue
        start, end = runs[np.argmax(runs[:, 1] - runs[:, 0])]
        first = str(days[numbers[start]].astype("datetime64[D]"))
        if end - start >= UNUSUAL_SESSIONS:
            what = (
                f"sampling changes: sessions in a row with {counts[start:end].min()} to {counts[start:end].max()} bars"
            )
            found.append(
                Finding(severity="warning", what=f"{what}, usually {usual:g}", count=int(end - start), first=first)
            )
        else:
            first = str(days[numbers[np.flatnonzero(is_unusual)[0]]].astype("datetime64[D]"))
            what = f"sessions with over {UNUSUAL_SHARE:.0%} {word} bars than the usual {usual:g}"
            found.append(Finding(severity="note", what=what, count=int(is_unusual.sum()), first=first))
    return tuple(found)


def _after_hours(bars: Bars, step: int, data: DataConfig) -> tuple[Finding, ...]:
    regular = place(bars.timestamp, step, data.model_copy(update={"session": "rth"}), "bars")
    return at_rows("note", "bars outside of regular hours", ~regular.kept, bars.timestamp)


def _ends(bars: Bars, rows: SessionRows, step_ns: int, data: DataConfig) -> tuple[Finding, ...]:
    """Say where the last session is cut: its last bar ends long before the regular close."""
    regular = data if data.calendar != "XNYS" else data.model_copy(update={"session": "rth"})
    plan = schedule(regular, int(bars.timestamp[0]), int(bars.timestamp[-1]))
    position = int(np.searchsorted(plan.open, rows.event_time[-1], side="right")) - 1
    last = rows.event_time[-1] + step_ns
    if position < 0 or last >= plan.close[position] or data.calendar == "24/7":
        return ()
    first = f"{stamp(last)}, close {stamp(plan.close[position])}"
    return (Finding(severity="note", what="the file ends within a session", first=first),)


def _days(bars: Bars, data: DataConfig) -> list[Finding]:
    day = np.unique(local_day(bars.timestamp))
    plan = schedule(data, int(bars.timestamp[0]), int(bars.timestamp[-1]))
    expected = plan.day[(plan.day >= day[0]) & (plan.day <= day[-1])]
    missing = np.setdiff1d(expected, day)
    return list(_missing(np.arange(len(missing)), missing))


def _prices(bars: Bars, title: str) -> list[Finding]:
    times, close = bars.timestamp, bars.close
    findings: list[Finding] = []
    move = np.diff(np.log(np.where(close > 0, close, np.nan)))
    new_day = np.diff(local_day(times)) != 0

    def rows(severity, what, bad):  # type: ignore[no-untyped-def]
        findings.extend(at_rows(severity, what, bad, times))

    rows(
        "warning",
        "bars after a jump over 40 % between days: a split, or an error",
        _after(new_day & (np.abs(move) > JUMP)),
    )
    rows("warning", "foreign bars: a move that the next bar undoes", _spikes(move, len(close)))
    large = int(np.nanargmax(np.abs(move))) if np.isfinite(move).any() else 0
    if len(move) and abs(move[large]) > LARGE_MOVE:
        text = f"largest move from bar to bar {np.expm1(move[large]):+.2%}"
        findings.append(Finding(severity="note", what=text, first=f"row {large + 2}, {stamp(times[large + 1])}"))
    flat = (bars.open == bars.high) & (bars.high == bars.low) & (bars.low == close)
    rows("note", "bars with open = high = low = close", flat)
    rows("note", "bars without volume (0): volume-weighted prices are masked there", bars.volume == 0)
    off_tick = np.abs(close / TICK - np.round(close / TICK)) > 1e-4
    if np.median(close) > 5 and 0 < off_tick.mean() < 1:
        rows("note", f"closes that are no multiple of {TICK} ({off_tick.mean():.1%})", off_tick)
    if CONTINUOUS.fullmatch(title.split()[-1]):
        what = "a continuous future: prices may be adjusted and levels not tradable; the file does not say"
        findings.append(Finding(severity="note", what=what))
    return findings


def _after(is_step: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.append(False, is_step)


def _spikes(move: NDArray[np.float64], n: int) -> NDArray[np.bool_]:
    import pandas as pd

    found = np.zeros(n, dtype=bool)
    if len(move) < SPIKE_WINDOW:
        return found
    size = np.abs(move)
    usual = pd.Series(size).rolling(SPIKE_WINDOW, center=True, min_periods=SPIKE_WINDOW // 2).median().to_numpy()
    there, back = size[:-1], size[1:]
    undone = (move[:-1] * move[1:] < 0) & (np.abs(move[:-1] + move[1:]) < SPIKE_RETURN * np.minimum(there, back))
    is_large = np.minimum(there, back) > np.maximum(SPIKE_SCALES * usual[:-1], LEAST_SPIKE)
    found[1:-1] = undone & is_large
    return found
