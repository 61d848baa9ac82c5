"""A long log is verified by several processes, and the answer is what one process alone gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosaudit import segments, stores
from heliosaudit.events import event_of
from heliosaudit.segments import PlainFile
from heliosaudit.verifications import Head, verify
from heliosvfs.reopening import Reopening

EVENTS = 900


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_LEAST", 200)


def fill(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    stores.create(connection, "root")
    connection.execute("COMMIT")
    for block in range(3):
        made = [event_of("INSERT", event_class="DML", user="u", target="t", query=f"{block} {n}") for n in range(EVENTS // 3)]
        stores.in_transaction(connection, made)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    with closing(apsw.Connection(str(tmp_path / "log"))) as connection:
        fill(connection)
    return tmp_path / "log"


def edit(log: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        connection.execute("DROP TRIGGER __audit_log_no_update; DROP TRIGGER __audit_log_no_delete")
        for statement in statements:
            connection.execute(statement)


def both(log: Path, **options: object) -> tuple[object, object]:
    with closing(apsw.Connection(str(log))) as connection:
        alone = verify(connection, **options)
        together = verify(connection, workers=4, opener=PlainFile(str(log)), **options)
    return [(r.verdict, r.events, r.first_broken, r.head) for r in (alone, together)]


def test_segments_cover_a_log_once() -> None:
    for first, last, workers in ((0, 901, 4), (7, 901, 3), (0, 399, 4), (5, 5, 2), (0, 1, 8)):
        pieces = segments._cut(first, last, workers)
        assert pieces[0][0] == first
        assert pieces[-1][1] == last
        assert all(one[1] == two[0] for one, two in itertools.pairwise(pieces))
        assert len(pieces) <= workers


def test_processes_really_work(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    real = segments._Worker.result

    def result(self: segments._Worker) -> tuple[Head, int] | None:
        found = real(self)
        started.append(found)
        return found

    monkeypatch.setattr(segments._Worker, "result", result)
    alone, together = both(log)
    assert alone == together
    assert len(started) == 3
    assert all(found is not None and found[1] > 200 for found in started)


def test_progress_reaches_its_end(log: Path) -> None:
    told: list[tuple[int, int]] = []
    with closing(apsw.Connection(str(log))) as connection:
        assert verify(connection, workers=3, opener=PlainFile(str(log)), progress=lambda *at: told.append(at)).ok
    assert told[-1] == (EVENTS + 1, EVENTS + 1)
    assert told == sorted(told)


@pytest.mark.parametrize("number", [1, 150, 225, 226, 450, 451, 675, 676, 901])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE __audit_log SET record = replace(record, 'INSERT', 'SELECT') WHERE id = {0}",
        "UPDATE __audit_log SET checksum = zeroblob(32) WHERE id = {0}",
        "DELETE FROM __audit_log WHERE id = {0}",
    ],
    ids=["edited", "checksum", "missing"],
)
def test_any_break_is_found_where_one_process_finds_it(log: Path, change: str, number: int) -> None:
    if number == 901 and change.startswith("DELETE"):
        pytest.skip("without a checkpoint a log that ends earlier is whole")
    if number == 1 and "INSERT" in change:
        change = change.replace("'INSERT', 'SELECT'", "'GENESIS', 'GENESES'")
    edit(log, change.format(number))
    alone, together = both(log)
    assert alone == together
    assert alone[0] == "broken"


def test_a_worker_that_dies_leaves_its_segment_to_us(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        report = verify(connection, workers=4, opener=PlainFile(str(log) + "-not-there"))
    assert report.ok
    assert report.events == EVENTS + 1


def test_what_follows_an_earlier_head_is_divided_too(log: Path) -> None:
    with closing(apsw.Connection(str(log))) as connection:
        checksum = connection.execute("SELECT checksum FROM __audit_log WHERE id = 100").get
    alone, together = both(log, since=Head(100, checksum))
    assert alone == together
    assert together[1] == EVENTS - 99


def test_an_encrypted_log_is_opened_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    real: Callable[[segments._Worker], tuple[Head, int] | None] = segments._Worker.result
    monkeypatch.setattr(segments._Worker, "result", lambda self: results.append(real(self)) or results[-1])
    key = bytes(range(32))
    with closing(heliosvfs.connect(tmp_path / "e.db", key=key)) as connection:
        fill(connection)
        report = verify(connection, workers=2, opener=Reopening.of(tmp_path / "e.db", key))
    assert report.ok
    assert results[0] is not None


def test_a_reopening_does_not_show_its_secret(tmp_path: Path) -> None:
    key = b"k" * 32
    assert "kkkk" not in repr(Reopening.of(tmp_path / "e.db", key))
