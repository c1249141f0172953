from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import journal as journal_module
from search.errors import JournalError
from search.journal import SCHEMA_VERSION, Journal

ROOT = Path(__file__).parents[2]
HEADER = {"study": {"seed": 3}, "commit": "abc"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def write(path: Path, n_events: int) -> None:
    with Journal.create(path, HEADER) as journal:
        for k in range(n_events):
            journal.append("observed", {"k": k, "text": "x" * 200})


def tamper(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_events_come_back_in_order_and_equal_what_append_returned(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        written = [journal.append("kind", {"n": n, "x": 0.1 + n}) for n in range(5)]
        assert list(journal.events()) == written
    with Journal.open(path) as journal:
        written.append(journal.append("last", {}))
    with Journal.read(path) as journal:
        assert journal.header == HEADER
        assert list(journal.events()) == written
    assert [event.seq for event in written] == [1, 2, 3, 4, 5, 6]


def test_it_is_plain_sqlite_and_json(path: Path) -> None:
    write(path, 2)
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT kind, body FROM events").fetchall()
    assert [(kind, json.loads(body)["k"]) for kind, body in rows] == [("observed", 0), ("observed", 1)]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(value: float) -> None:
    assert json.loads(journal_module.to_json({"x": value}))["x"].hex() == value.hex()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
MORE = st.dates() | st.binary() | st.decimals() | st.frozensets(st.integers()) | st.fractions()


def nested(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Lists, tuples and dicts of them; keys are text or numbers."""
    keys = st.text() | st.integers()
    return st.recursive(leaves, lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(keys, v), max_leaves=8)


@given(nested(LEAVES | MORE))
def test_the_fast_way_through_json_is_the_way_of_the_standard_library(value: object) -> None:
    """Equal down to types and signs of zero, refusals included, half surrogates too."""
    try:
        expected = json.loads(journal_module.to_json(value))
    except ValueError:
        with pytest.raises(ValueError, match=r"JSON|float|digit"):
            journal_module.through_json(value)
        return
    text, read = journal_module.through_json(value)
    assert repr(read) == repr(json.loads(text)) == repr(journal_module._from_json(text)) == repr(expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_is_no_json_is_refused_and_leaves_no_trace(path: Path, value: object) -> None:
    with Journal.create(path, HEADER) as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append("kind", {"x": value})
        assert list(journal.events()) == []


def test_a_header_that_is_no_json_leaves_no_file(path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Journal.create(path, {"x": float("nan")})
    assert list(path.parent.iterdir()) == []


def test_an_existing_journal_is_never_overwritten(path: Path) -> None:
    write(path, 1)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="--resume"):
        Journal.create(path, HEADER)
    assert path.read_bytes() == before


# Damage: an error that names the file, never a silent restart (F03).


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def overwrite_with_text(path: Path) -> None:
    path.write_text("this is not a database" * 100)


DAMAGES = {
    "deleted": Path.unlink,
    "empty": lambda p: cut(p, 0.0),
    "half": lambda p: cut(p, 0.5),
    "nine tenths": lambda p: cut(p, 0.9),
    "text": overwrite_with_text,
    "no header": lambda p: tamper(p, "DELETE FROM header"),
    "changed header": lambda p: tamper(p, "UPDATE header SET body = '{}'"),
    "torn header": lambda p: tamper(p, "UPDATE header SET body = '{\"a'"),
    "lost event": lambda p: tamper(p, "DELETE FROM events WHERE seq = 7"),
    "changed event": lambda p: tamper(p, "UPDATE events SET body = replace(body, '7', '8') WHERE seq = 8"),
    "torn event": lambda p: tamper(p, "UPDATE events SET body = substr(body, 1, 20) WHERE seq = 40"),
    "no events": lambda p: tamper(p, "DROP TABLE events"),
    "newer": lambda p: tamper(p, f"PRAGMA user_version = {SCHEMA_VERSION + 1}"),
    "another program's": lambda p: tamper(p, "PRAGMA application_id = 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("opened", [Journal.open, Journal.read])
def test_damage_is_told_and_never_repaired(path: Path, damage: str, opened: object) -> None:
    write(path, 40)
    DAMAGES[damage](path)
    with pytest.raises(JournalError, match=re.escape(str(path))) as caught:
        with opened(path) as journal:
            list(journal.events())
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is this a run folder"):
        Journal.open(tmp_path / "nothing" / "journal.sqlite")


# The lease (F28, F29).


def test_a_second_driver_is_kept_out_and_told_who_is_there(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        with pytest.raises(JournalError, match=f"study locked by {re.escape(socket.gethostname())}:{os.getpid()}"):
            Journal.open(path)
        with Journal.read(path) as reader:
            assert list(reader.events()) == []
            with pytest.raises(JournalError, match="to read only"):
                reader.append("kind", {})
        journal.append("kind", {})
    Journal.open(path).close()


def test_a_jump_of_the_wall_clock_takes_no_lease_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.create(path, HEADER):
        now = time.time()
        for jump in (3600.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
            with pytest.raises(JournalError, match="study locked"):
                Journal.open(path)


@pytest.mark.parametrize(
    "dead", ["pid = 2147480000", "born = '1'", "boot = 'earlier'", "beat_s = beat_s - 61, token = 'hung'"]
)
def test_the_lease_of_the_dead_is_taken_over_and_they_are_fenced(path: Path, dead: str) -> None:
    first = Journal.create(path, HEADER)
    tamper(path, f"UPDATE lease SET {dead}")
    with Journal.open(path) as second:
        second.append("kind", {"by": "second"})
        with pytest.raises(JournalError, match="taken over"):
            first.append("kind", {"by": "first"})
        assert [event.body["by"] for event in second.events()] == ["second"]
        first.close()
        second.append("kind", {"by": "second"})


def test_another_host_is_believed_alive_while_its_counter_moves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.create(path, HEADER):
        tamper(path, "UPDATE lease SET host = 'elsewhere', pid = 5")
        with pytest.raises(JournalError, match="elsewhere:5"):
            Journal.open(path)
        tamper(path, "UPDATE lease SET time_s = time_s - 3600")
        monkeypatch.setattr(time, "sleep", lambda _: tamper(path, "UPDATE lease SET beat = beat + 1"))
        with pytest.raises(JournalError, match="elsewhere:5"):
            Journal.open(path)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        Journal.open(path).close()


def test_the_lease_is_kept_alive(path: Path) -> None:
    Journal.create(path, HEADER).close()
    with Journal.open(path, lease_s=0.06), Journal.read(path) as reader:
        before = reader._connection.execute("SELECT beat FROM lease").fetchone()[0]
        deadline = time.monotonic() + 10
        while reader._connection.execute("SELECT beat FROM lease").fetchone()[0] < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


WRITER = """
import sys
from pathlib import Path
from search.journal import Journal
path = Path(sys.argv[1])
journal = Journal.open(path) if path.exists() else Journal.create(path, {})
for k in range(100000):
    print(journal.append("kind", {"k": k}).seq, flush=True)
"""


@pytest.mark.requirement("SEARCH-15")
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(path: Path) -> None:
    """SIGKILL five times (F01, F02); the next writer takes over at once and goes on behind the last event."""
    acknowledged = 0
    for n_lines in (1, 7, 20, 3, 12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert writer.stdout is not None
        for _ in range(n_lines):
            assert (line := writer.stdout.readline()), "the writer ended by itself"
            assert int(line) == acknowledged + 1
            acknowledged += 1
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        acknowledged += sum(1 for line in rest[:-1])
        writer.stdout.close()
        writer.wait()
        with Journal.read(path) as journal:
            written = [event.seq for event in journal.events()]
        assert written == list(range(1, len(written) + 1))
        assert len(written) - acknowledged in (0, 1)  # the last may be committed and not yet printed
        acknowledged = len(written)


# Groups: several events, one wait for the disk.


def test_a_group_is_on_disk_when_it_ends_and_not_before(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        journal.append("alone", {})
        with journal.group():
            first, second = journal.append("a", {"n": 1}), journal.append("b", {"n": 2})
            with Journal.read(path) as other:
                assert len(list(other.events())) == 1
        with Journal.read(path) as other:
            assert list(other.events())[1:] == [first, second]
        journal.append("alone", {})
    with Journal.read(path) as other:
        assert [event.seq for event in other.events()] == [1, 2, 3, 4]


def test_a_group_whose_block_raises_keeps_what_was_told(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        with suppress(KeyError), journal.group():
            journal.append("told", {})
            raise KeyError
        journal.append("after", {})
        assert [event.kind for event in journal.events()] == ["told", "after"]


def test_a_group_inside_a_group_and_a_group_of_a_reader_are_refused(path: Path) -> None:
    with Journal.create(path, HEADER) as journal, journal.group():
        with pytest.raises(JournalError, match="no group of events inside another"), journal.group():
            pass
    with Journal.read(path) as reader, pytest.raises(JournalError, match="read only"), reader.group():
        pass


def test_a_group_is_fenced_like_a_single_event(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        tamper(path, "UPDATE lease SET token='other'")
        with pytest.raises(JournalError, match="taken over"), journal.group():
            raise AssertionError("not reached")
        with pytest.raises(JournalError, match="taken over"):
            journal.append("kind", {})
