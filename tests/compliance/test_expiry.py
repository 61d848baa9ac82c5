"""Rows that are older than they may be go, whatever their column writes times as; what is no time stays and is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs.compliance.expiry import Expired, Expiry, expire

DAY = 86_400
NOW = 1_800_000_000.0


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    with closing(heliosvfs.connect(tmp_path / "app.db", key=bytes(32), audit="gdpr")) as made:
        made.execute(
            "CREATE TABLE visit(id INTEGER PRIMARY KEY, at); CREATE TABLE log(at, who, PRIMARY KEY(at, who)) WITHOUT ROWID"
        ).fetchall()
        yield made


def moment(connection: Any, days: float) -> str:
    return str(connection.execute("SELECT datetime(?, 'unixepoch')", (NOW - days * DAY,)).get)


def test_every_way_to_write_a_time_is_read(connection: Any) -> None:
    julian = NOW / DAY + 2440587.5
    kept = [
        moment(connection, 29),
        moment(connection, 29)[:10] + "T23:59:59Z",
        NOW - 29 * DAY,
        int(NOW - 29 * DAY) * 1000,
        julian - 29,
    ]
    gone = [
        moment(connection, 31),
        moment(connection, 32)[:10],
        NOW - 31 * DAY,
        int(NOW - 31 * DAY) * 1000,
        julian - 31,
        int(julian) - 31,
    ]
    unreadable = [None, "", "yesterday", "now", "2026-13-45", b"2020-01-01", "2459000"]
    connection.executemany("INSERT INTO visit(at) VALUES(?)", [(value,) for value in (*kept, *gone, *unreadable)])
    expiries = [Expiry(table="visit", time_column="at", days=30)]
    assert expire(connection, expiries, now=NOW, dry_run=True) == [Expired("visit", len(gone), len(unreadable))]
    assert connection.execute("SELECT count(*) FROM visit").get == len(kept) + len(gone) + len(unreadable)
    assert expire(connection, expiries, now=NOW) == [Expired("visit", len(gone), len(unreadable))]
    assert connection.execute("SELECT at FROM visit ORDER BY id").get == [*kept, *unreadable]


def test_many_rows_go_in_batches_that_are_recorded(connection: Any) -> None:
    with connection:
        connection.executemany("INSERT INTO visit(at) VALUES(?)", ((NOW - 40 * DAY,) for _ in range(2500)))
    [expired] = expire(connection, [Expiry(table="visit", time_column="at")], days=30, now=NOW)
    assert expired.rows == 2500
    connection.auditor.flush()
    batches = connection.execute("SELECT affected_rows FROM __audit_log WHERE operation = 'DELETE' ORDER BY id").get
    assert batches == [1000, 1000, 500]


def test_a_table_without_rowids_expires_too(connection: Any) -> None:
    connection.execute("INSERT INTO log VALUES(?, 'a'), (?, 'b')", (NOW - 40 * DAY, NOW))
    [expired] = expire(connection, [Expiry(table="log", time_column="at", days=30)], now=NOW)
    assert expired.rows == 1
    assert connection.execute("SELECT who FROM log").get == "b"


def test_what_cannot_be_expired_is_said(connection: Any) -> None:
    with pytest.raises(heliosvfs.UsageError, match="data_retention_days"):
        expire(connection, [Expiry(table="visit", time_column="at")])
    with pytest.raises(apsw.SQLError, match="nope"):
        expire(connection, [Expiry(table="nope", time_column="at", days=1)])
    connection.execute("BEGIN")
    with pytest.raises(heliosvfs.UsageError, match="transaction"):
        expire(connection, [Expiry(table="visit", time_column="at", days=1)])
