"""The journal: an append-only event log in one SQLite file, and the lease that keeps a second driver out.

WAL with `synchronous=FULL`: an event is on disk before `append` returns. Bodies are JSON, so anyone may open the file.
Every event carries a digest of itself and of all before it: a changed or missing line is found, not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pydantic_core

from search.errors import JournalError

APPLICATION_ID = 0x434F4E44
"""`COND`: SQLite's own mark of whose file this is."""
SCHEMA_VERSION = 1
LEASE_SECONDS = 60.0
"""A driver that has shown no sign of life for so long has lost its lease."""

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_SCHEMA = """
CREATE TABLE header(body TEXT NOT NULL);
CREATE TABLE events(
    seq INTEGER PRIMARY KEY, time_utc TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, chain TEXT NOT NULL
);
CREATE TABLE lease(host TEXT, boot TEXT, pid INTEGER, born TEXT, token TEXT, beat INTEGER, beat_s REAL, time_s REAL);
INSERT INTO lease VALUES (NULL, NULL, NULL, NULL, NULL, 0, 0, 0);
"""


_Row = tuple[int, str, str, str, str]
"""A row of `events`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal: position from 1, time with zone, kind and JSON body."""

    seq: int
    time_utc: str
    kind: str
    body: Mapping[str, Any]


class EventLog(Protocol):
    """What a study writes to: the journal, or `search.memory_journal`."""

    header: Mapping[str, Any]

    def append(self, kind: str, body: Mapping[str, Any]) -> Event: ...
    def group(self) -> AbstractContextManager[None]: ...
    def events(self) -> Iterator[Event]: ...
    def close(self) -> None: ...


class Journal:
    """The event log of one study. Made by `create`, `open` (the one writer) or `read` (anyone).

    Raises:
        JournalError: From every method, where the file cannot be used; the message names it and says what to do.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, token: str | None, lease_s: float) -> None:
        self.path = path
        self._connection = connection
        self._token = token
        self._closed = threading.Event()
        with _explained(path):
            text = _one(connection, "SELECT body FROM header")
            self.header: Mapping[str, Any] = json.loads(text)
            self._begin = _link("", text)
            last = connection.execute("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        self._seq: int = last[0] if last else 0
        self._chain: str = last[1] if last else self._begin
        self._grouped: list[_Row] | None = None
        """Events of the group that is open, if any."""
        self._is_broken = False
        if token is not None:
            arguments = (path, token, self._closed, lease_s)
            threading.Thread(target=_keep_lease, args=arguments, daemon=True, name="lease").start()

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Write a new journal with its header and take the lease.

        The file appears under its name only when it is whole.

        Raises:
            JournalError: The file exists already, or its folder cannot be written to.
        """
        if path.exists():
            raise JournalError(f"{path}: expected no journal yet, found one; use --resume, or another --out")
        text = to_json(header)
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)
        try:
            with _explained(path):
                _write_new(draft, text)
                os.link(draft, path)
                _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, lease_s: float = LEASE_SECONDS) -> Journal:
        """Open a journal to write on, after a check of its integrity.

        Args:
            path: Of the journal.
            lease_s: Seconds without a sign of life after which a driver has lost its lease; the same for all drivers.

        Raises:
            JournalError: No such file, not a journal, damaged, of a newer version, or held by a living driver.
        """
        connection = _connect_checked(path)
        try:
            with _explained(path):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                token = _take_lease(path, connection, lease_s)
            return cls(path, connection, token, lease_s)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Open a journal to look at it; needs no lease.

        Raises:
            JournalError: No such file, not a journal, damaged, or of a newer version.
        """
        connection = _connect_checked(path)
        connection.execute("PRAGMA query_only=ON")
        return cls(path, connection, None, 0.0)

    def append(self, kind: str, body: Mapping[str, Any]) -> Event:
        """Commit one event and return it as a reader would see it; inside `group` it is committed with the others.

        Raises:
            JournalError: Another driver has taken the lease over, the disk is full, or the file is read-only.
            ValueError: The body holds something that JSON has no word for.
        """
        self._prepare()
        (text, read), time_utc = through_json(body), datetime.now(UTC).isoformat(timespec="milliseconds")
        seq = self._seq + 1
        chain = _link(self._chain, f"{seq} {time_utc} {kind} {text}")
        row = (seq, time_utc, kind, text, chain)
        if self._grouped is not None:
            self._grouped.append(row)
        else:
            with _explained(self.path), _transaction(self._connection):
                self._prove_lease()
                self._insert([row])
        self._seq, self._chain = seq, chain
        return Event(seq, time_utc, kind, read)

    @contextmanager
    def group(self) -> Iterator[None]:
        """Commit the events that are appended inside at the end, with one wait for the disk.

        Killed before the end, none of them was written. A block that raises has its events committed all the same: they
        have been told. Keep the block short, it holds the file's write lock.

        Raises:
            JournalError: As `append`; or a group inside a group. Where the commit fails, the journal takes no more.
        """
        if self._grouped is not None:
            raise JournalError(f"{self.path}: expected no group of events inside another")
        self._prepare()
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._prove_lease()
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
        grouped = self._grouped = []
        try:
            yield
        finally:
            self._grouped, self._is_broken = None, True
            with _explained(self.path):
                self._insert(grouped)
                self._connection.execute("COMMIT")
            self._is_broken = False

    def events(self) -> Iterator[Event]:
        """Yield all events in order; those of a group once it has ended.

        Raises:
            JournalError: A line is missing, was changed, or cannot be read.
        """
        chain = self._begin
        with _explained(self.path):
            rows = self._connection.execute("SELECT seq, time_utc, kind, body, chain FROM events ORDER BY seq")
            for position, (seq, time_utc, kind, text, found) in enumerate(rows, start=1):
                chain = _link(chain, f"{seq} {time_utc} {kind} {text}")
                if seq != position or chain != found:
                    raise JournalError(
                        f"{self.path}: event {position} is missing or was changed; restore a copy of the journal"
                    )
                yield Event(seq, time_utc, kind, _from_json(text))

    def close(self) -> None:
        """Give the lease back and close the file; a second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        try:
            if self._token is not None:
                self._connection.execute(
                    "UPDATE lease SET host=NULL, pid=NULL, token=NULL WHERE token=?", (self._token,)
                )
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: could not give the lease back: {error}") from error
        finally:
            self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._closed.set()

    def _prepare(self) -> None:
        if self._token is None:
            raise JournalError(f"{self.path}: opened to read only; nothing was written")
        if self._is_broken:
            raise JournalError(f"{self.path}: a commit failed before; resume the study")

    def _insert(self, rows: list[_Row]) -> None:
        self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)

    def _prove_lease(self) -> None:
        token, host, pid = self._connection.execute("SELECT token, host, pid FROM lease").fetchone()
        if token != self._token:
            raise JournalError(f"{self.path}: the lease was taken over by {host}:{pid}; this driver must end")


def to_json(value: Any) -> str:
    """Write a value as JSON: floats keep every bit, NaN and infinity are refused.

    Raises:
        ValueError: The value holds NaN, infinity or something that is no JSON.
    """
    try:
        return _ENCODER.encode(value)
    except TypeError as error:
        raise ValueError(f"expected JSON values only: {error}") from error


def through_json(value: Any) -> tuple[str, Any]:
    """Return a value as JSON text, and what a reader of the text gets; refuses what `to_json` refuses.

    Pydantic does both several times as fast as the standard library, but also writes sets, dates and the like. So its
    text is taken only where it reads back as the very value; of all else `to_json` decides.

    Raises:
        ValueError: As `to_json`.
    """
    try:
        text = pydantic_core.to_json(value).decode()
        read = pydantic_core.from_json(text, allow_inf_nan=False)
        if read == value:
            return text, read
    except ValueError:
        pass
    text = to_json(value)
    return text, json.loads(text)


def _from_json(text: str) -> Any:
    try:
        return pydantic_core.from_json(text)
    except ValueError:  # halves of surrogate pairs, which `to_json` may write and Pydantic does not read
        return json.loads(text)


def _link(before: str, text: str) -> str:
    return hashlib.blake2b(f"{before}\n{text}".encode(), digest_size=16).hexdigest()


# The lease. On this host the dead are known by their pid, and age is told by the monotonic clock that all processes of
# one boot share; a jump of the wall clock moves nothing. From another host the wall clock is a hint only: the lease is
# taken over when it looks expired and its counter then stands still for a whole beat.


class _Holder(NamedTuple):
    host: str
    boot: str
    pid: int
    born: str
    token: str | None
    beat: int
    beat_s: float
    time_s: float


def _take_lease(path: Path, connection: sqlite3.Connection, lease_s: float) -> str:
    row = connection.execute("SELECT host, boot, pid, born, token, beat, beat_s, time_s FROM lease").fetchone()
    holder = _Holder(*row)
    if holder.token is not None and _is_held(connection, holder, lease_s):
        raise JournalError(
            f"{path}: study locked by {holder.host}:{holder.pid}, which is alive; wait for it to end, or stop it"
        )
    mine = secrets.token_hex(8)
    with _transaction(connection):
        taken = connection.execute(
            "UPDATE lease SET host=?, boot=?, pid=?, born=?, token=?, beat=beat+1, beat_s=?, time_s=? WHERE token IS ?",
            (_host(), _boot(), os.getpid(), _born(os.getpid()), mine, time.monotonic(), time.time(), holder.token),
        )
    if taken.rowcount != 1:
        raise JournalError(f"{path}: study locked by a driver that came first; wait for it to end")
    return mine


def _is_held(connection: sqlite3.Connection, holder: _Holder, lease_s: float) -> bool:
    if holder.host == _host():
        is_recent = time.monotonic() - holder.beat_s < lease_s
        return holder.boot == _boot() and is_recent and _is_alive(holder.pid, holder.born)
    if abs(time.time() - holder.time_s) < lease_s:
        return True
    time.sleep(lease_s / 4)
    return bool(_one(connection, "SELECT beat FROM lease") != holder.beat)


def _keep_lease(path: Path, token: str, closed: threading.Event, lease_s: float) -> None:
    while not closed.wait(lease_s / 6):
        try:
            with closing(_connect(path)) as connection, _transaction(connection):
                connection.execute(
                    "UPDATE lease SET beat=beat+1, beat_s=?, time_s=? WHERE token=?",
                    (time.monotonic(), time.time(), token),
                )
        except sqlite3.Error:
            continue  # a busy or full disk: the next beat may succeed, and `append` says what is wrong


def _host() -> str:
    return socket.gethostname()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot: tells a reused pid; empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_alive(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not born or _born(pid) == born


def _write_new(path: Path, header: str) -> None:
    with closing(_connect(path, "mode=rwc")) as connection:
        connection.executescript(f"PRAGMA synchronous=FULL; BEGIN; {_SCHEMA} COMMIT;")
        connection.execute("INSERT INTO header VALUES (?)", (header,))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _connect(path: Path, mode: str = "mode=rw") -> sqlite3.Connection:
    if not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
        mode = "immutable=1"  # an archived run: WAL would want to write its index beside the file
    where = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(where, uri=True, isolation_level=None, timeout=20.0, check_same_thread=False)


def _connect_checked(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise JournalError(f"{path}: expected a journal, found no such file; is this a run folder?")
    with _explained(path):
        connection = _connect(path)
        try:
            if _one(connection, "PRAGMA application_id") != APPLICATION_ID:
                raise JournalError(f"{path}: expected a journal of a search, found another SQLite file")
            version = _one(connection, "PRAGMA user_version")
            if version > SCHEMA_VERSION:
                raise JournalError(
                    f"{path}: expected schema version {SCHEMA_VERSION} or older, found {version}; update the program"
                )
            found = _one(connection, "PRAGMA integrity_check")
            if found != "ok":
                raise JournalError(f"{path}: the journal is damaged ({found.splitlines()[0]}); restore a copy of it")
        except BaseException:
            connection.close()
            raise
    return connection


def _one(connection: sqlite3.Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"no row for {query}")
    return row[0]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, json.JSONDecodeError) as error:
        raise JournalError(f"{path}: the journal cannot be used: {error}; check the disk, or restore a copy") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
