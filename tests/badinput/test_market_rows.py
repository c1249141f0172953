"""Files whose rows are good one by one and which are bad as a whole: holes, jumps, overlaps, chains, short folds.

The B numbers are those of the project's list of faults; rows that are bad by themselves are in `test_data_rows`.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from search import run
from tests.trainables.data.chains import chain_columns
from tests.trainables.data.files import bar_columns, session_columns, write_parquet, write_text
from tests.trainables.data.markets import make_market
from trainables.data.check import check_file, main
from trainables.data.config import ChainConfig, DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL
from trainables.data.loader import load_market, outline
from trainables.data.options import quote_reasons, read_chain
from trainables.data.store import FeatureStore, keep_to_market
from trainables.errors import DataChanged, DataError
from trainables.mlp.labels import direction_labels

FOLDS = FoldsConfig(train_months=1)


def report(path):
    return "\n".join(str(section) for section in check_file(path))


def without(columns, rows):
    return {name: np.delete(values, rows) for name, values in columns.items()}


def outline_of(path, **settings):
    return outline(DataConfig(source="files", bars=path, **settings), FOLDS)


@pytest.mark.parametrize("first", [date(2024, 3, 7), date(2024, 10, 31)])
def test_b09_a_change_of_the_clock_is_no_gap(tmp_path, first):
    text = report(write_parquet(tmp_path / "b.parquet", session_columns(4, first=first)))
    assert "bars per session: 4 x 390" in text
    assert "gaps" not in text


def test_b09_a_day_of_23_hours_around_the_clock_is_no_gap(tmp_path):
    start = np.datetime64("2024-03-09T05:00", "ns").astype(np.int64)
    text = report(write_parquet(tmp_path / "b.parquet", bar_columns(3 * 1440, start=int(start))))
    assert "calendar: 24/7" in text
    assert "gaps" not in text


def test_b24_missing_sessions_are_marked_and_beyond_the_limit_refused(tmp_path):
    columns = session_columns(70)
    path = write_parquet(tmp_path / "few.parquet", without(columns, np.arange(390 * 10, 390 * 20)))
    assert outline_of(path).marks["holes"].startswith("1 in the data")
    with pytest.raises(DataError, match=r"at least 90% of 67 sessions of XNYS, found 57; complete the file, or raise"):
        outline_of(path, max_missing_sessions_frac=0.1)
    path = write_parquet(tmp_path / "many.parquet", without(columns, np.arange(390 * 10, 390 * 50)))
    with pytest.raises(DataError, match=r"at least 65% of 67 sessions"):
        outline_of(path)


def test_b25_an_overnight_jump_is_marked_with_its_date(tmp_path):
    columns = session_columns(70)
    assert "jumps" not in outline_of(write_parquet(tmp_path / "good.parquet", columns)).marks
    for name in ("open", "high", "low", "close"):
        columns[name][390 * 2 :] *= 0.5
    marks = outline_of(write_parquet(tmp_path / "split.parquet", columns)).marks
    assert marks["jumps"] == "1 over 40 % between sessions, the first on 2024-01-04: a split, or an error"


def test_b26_a_symbol_that_ends_before_the_others_is_named(tmp_path):
    columns = session_columns(20)
    n = len(columns["close"])
    short = {name: values[: 390 * 5] for name, values in columns.items()}
    both = {name: np.concatenate([values, short[name]]) for name, values in columns.items()}
    path = write_parquet(tmp_path / "b.parquet", {**both, "symbol": ["SPY"] * n + ["LEH"] * len(short["close"])})
    assert "warning: symbols that end before it (1); first: LEH, 2024-01-08 20:59:00Z" in report(path)


def test_b31_a_file_that_changes_during_the_search_stops_it(tmp_path):
    columns = session_columns(70)
    data = DataConfig(source="files", bars=write_parquet(tmp_path / "bars.parquet", columns))
    store = FeatureStore(tmp_path / "store")
    for _ in range(2):
        keep_to_market(store, load_market(data, FOLDS), data=data, folds=FOLDS)
    columns["close"][7] += 1e-3
    write_parquet(tmp_path / "bars.parquet", columns)
    with pytest.raises(DataChanged, match="a file has changed since; put it back, or begin another search"):
        keep_to_market(FeatureStore(tmp_path / "store"), load_market(data, FOLDS), data=data, folds=FOLDS)


def test_b31_changed_data_exit_4(monkeypatch, capsys):
    def changed(_):
        raise DataChanged("data: a file has changed since")

    monkeypatch.setattr(run, "_search", changed)
    assert run.main(["--space", "spaces/mlp.yaml"]) == 4
    assert "a file has changed" in capsys.readouterr().err


def chain_of(path):
    return read_chain(ChainConfig(path=path), None)


def test_b34_a_chain_of_one_strike_is_read_and_its_bounds_are_still_looked_at(tmp_path):
    columns = chain_columns(1, days=(31,), strikes=(450,))
    chain = chain_of(write_parquet(tmp_path / "c.parquet", columns))
    assert quote_reasons(chain, 0.02).tolist() == [0, 0]
    columns["bid"][:], columns["ask"][:] = 500.0, 501.0
    chain = chain_of(write_parquet(tmp_path / "c.parquet", columns))
    assert (quote_reasons(chain, 0.02) != 0).all()


def test_b35_a_missing_expiry_is_refused_with_its_row(tmp_path):
    columns = chain_columns(1, days=(31,), strikes=(450, 470))
    days = columns["expiry"].to_pylist()
    days[2] = None
    path = write_parquet(tmp_path / "c.parquet", {**columns, "expiry": pa.array(days, pa.date32())})
    with pytest.raises(DataError, match=r"c\.parquet: row 3: expected an expiry, found none \(1 rows\); take them out"):
        chain_of(path)
    texts = ["" if day is None else day.isoformat() for day in days]
    with pytest.raises(DataError, match="row 3: expected ISO-8601"):
        chain_of(write_text(tmp_path / "c.csv", {**columns, "expiry": texts}))
    del columns["expiry"]
    with pytest.raises(DataError, match="expected a column expiry"):
        chain_of(write_parquet(tmp_path / "c.parquet", columns))


def test_b36_rows_whose_label_lies_beyond_the_data_have_none_and_are_counted():
    market = make_market(np.arange(100.0, 120))
    for horizon in (1, 5, 19):
        targets, _, end = direction_labels(market, horizon)
        assert np.flatnonzero(end == NO_LABEL).tolist() == list(range(20 - horizon, 20))
        assert np.isnan(targets[20 - horizon :]).all()


def test_two_files_that_overlap_and_disagree(tmp_path, capsys):
    columns = bar_columns(40)
    early = write_parquet(tmp_path / "early.parquet", {name: values[:30] for name, values in columns.items()})
    late = {name: values[20:].copy() for name, values in columns.items()}
    agreeing = write_text(tmp_path / "agreeing.csv", late)
    late["volume"][4] += 1
    differing = write_parquet(tmp_path / "differing.parquet", late)
    assert main([early, agreeing]) == 0
    assert "note: instants in both files, with equal bars (10)" in capsys.readouterr().out
    assert main([early, differing]) == 1
    out = capsys.readouterr().out
    assert "early.parquet and differing.parquet: bars" in out
    assert "error: the files overlap in 10 instants and disagree; keep one of them (1); first: 2024-01-02" in out
    assert "(row 25) and" in out
    apart = {name: values[30:] for name, values in columns.items()}
    assert main([early, write_parquet(tmp_path / "apart.parquet", apart)]) == 0
    assert "overlap" not in capsys.readouterr().out


def test_two_files_that_agree_nowhere_may_be_of_two_instruments_unless_they_name_one(tmp_path, capsys):
    one, other = bar_columns(20), {name: values * 2 for name, values in bar_columns(20).items()}
    other["timestamp"] = one["timestamp"]
    for symbol, code, says in (({}, 0, "warning: the files"), ({"symbol": ["SPY"] * 20}, 1, "error: the files")):
        paths = [write_parquet(tmp_path / f"{i}.parquet", {**c, **symbol}) for i, c in enumerate((one, other))]
        assert main(paths) == code
        assert says in capsys.readouterr().out


def test_an_empty_session_and_a_constant_column_are_named(tmp_path):
    columns = session_columns(10)
    columns["volume"][:] = 7.0
    text = report(write_parquet(tmp_path / "b.parquet", without(columns, np.arange(390, 780))))
    assert "warning: sessions of the calendar without a bar (1); first: 2024-01-03" in text
    assert "warning: volume is 7 in every row (3,510)" in text


@pytest.mark.parametrize("fault", ["missing expiry", "naive", "seconds", "cut"])
def test_bad_files_exit_3(fault, tmp_path, capsys):
    columns = session_columns(70)
    settings = []
    if fault == "naive":
        columns["timestamp"] = pa.array(columns["timestamp"]).cast(pa.timestamp("ns"))
    if fault == "seconds":
        columns["timestamp"] //= 10**9
    path = tmp_path / "bars.parquet"
    write_parquet(path, columns)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    if fault == "missing expiry":
        chain = chain_columns(1)
        gone = pa.array([None] * len(chain["strike"]), pa.date32())
        settings = ["--set", f"data.chain={{path: {write_parquet(tmp_path / 'c.parquet', {**chain, 'expiry': gone})}}}"]
    says = {"missing expiry": "expected an expiry", "naive": "set data.timezone", "seconds": "it looks like seconds"}
    out = tmp_path / "run"
    code = run.main([
        "--space", "spaces/mlp.yaml", "--profile", "smoke", "--out", str(out), "--set", "data.source=files",
        "--set", f"data.bars={path}", "--set", "folds.train_months=1", "--set", "folds.validation_months=1",
        "--set", "folds.test_months=1", *settings,
    ])  # fmt: skip
    err = capsys.readouterr().err
    assert (code, says.get(fault, "expected a whole Parquet") in err) == (3, True), err
    assert not out.exists()
