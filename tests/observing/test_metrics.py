"""Metrics: what is counted, that counting disturbs nobody, and that Prometheus' own parser reads the text."""

from __future__ import annotations

import gc
import http.client
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import apsw
import pytest

import heliosvfs
from heliosvfs import metrics, notices
from heliosvfs.audit import Policy
from heliosvfs.backup import backup
from heliosvfs.rotation import rotate

KEY = bytes(range(32))


def values() -> dict[str, float]:
    """Return all samples by name and labels."""
    lines = [line for line in metrics.render().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture
def before() -> dict[str, float]:
    gc.collect()
    return values()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "clinic.db"
    with closing(heliosvfs.connect(where, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        with connection:
            connection.executemany("INSERT INTO t VALUES(randomblob(3000))", (() for _ in range(200)))
    return where


def test_pages_are_counted_as_sqlite_counts_what_its_cache_misses(path: Path, before: dict[str, float]) -> None:
    with closing(heliosvfs.connect(path, key=KEY, create=False)) as connection:
        start, missed = values(), connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
        connection.execute("SELECT sum(length(x)) FROM t").fetchall()
        opened = (
            values()['heliosvfs_pages_opened_total{file="database"}'] - start['heliosvfs_pages_opened_total{file="database"}']
        )
        assert opened == connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] - missed > 200
        connection.execute("UPDATE t SET x = zeroblob(3000)").fetchall()
        sealed = values()['heliosvfs_pages_sealed_total{file="wal"}'] - start['heliosvfs_pages_sealed_total{file="wal"}']
        assert sealed == connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] >= 200
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        checkpointed = (
            values()['heliosvfs_pages_sealed_total{file="database"}'] - start['heliosvfs_pages_sealed_total{file="database"}']
        )
        assert checkpointed == sealed
    assert (
        values()['heliosvfs_pages_opened_total{file="database"}']
        >= before['heliosvfs_pages_opened_total{file="database"}'] + opened
    )


def test_the_counts_of_a_connection_outlive_it_however_it_ends(path: Path, before: dict[str, float]) -> None:
    name = 'heliosvfs_pages_opened_total{file="database"}'
    connection = heliosvfs.connect(path, key=KEY)
    connection.execute("SELECT sum(length(x)) FROM t").fetchall()
    there = values()[name]
    assert there > before[name]
    assert values()["heliosvfs_connections"] == before["heliosvfs_connections"] + 1
    connection.close()
    assert values()[name] >= there
    foreign = apsw.Connection(f"file:{path}", vfs="heliosvfs", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI)
    foreign.pragma("key", f"x'{KEY.hex()}'")
    foreign.execute("SELECT sum(length(x)) FROM t").fetchall()
    there = values()[name]
    del foreign
    gc.collect()
    assert values()[name] >= there
    assert values()["heliosvfs_connections"] == before["heliosvfs_connections"]


@pytest.mark.parametrize("audit", [None, Policy(log_select=True, flush_interval=0.01)], ids=["plain", "audited"])
def test_who_asks_disturbs_nobody_who_works(path: Path, audit: Policy | None) -> None:
    """APSW refuses whichever of two threads comes second to a connection: asking must not be the first."""
    texts: list[dict[str, float]] = []
    done, failed = threading.Event(), []

    def ask() -> None:
        try:
            while not done.is_set():
                texts.append(values())
        except apsw.Error as error:
            failed.append(error)

    with closing(heliosvfs.connect(path, key=KEY, audit=audit)) as connection:
        metrics.watch(connection)
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for number in range(100):
                connection.execute("INSERT INTO t VALUES(?)", (number,))
                connection.execute("SELECT count(*), sum(length(x)) FROM t, (VALUES(1), (2), (3), (4), (5), (6), (7))").fetchall()
                assert connection.changes() == 1
        finally:
            done.set()
            thread.join()
    assert not failed
    assert len(texts) > 1
    for name in (name for name in texts[0] if name.split("{")[0].endswith("_total")):
        series = [text[name] for text in texts if name in text]
        assert series == sorted(series), name


def test_gauges_tell_of_a_database_while_it_is_watched(path: Path) -> None:
    label = f'{{database="{path}"}}'
    policy = Policy(log_select=True, flush_interval=3600.0)
    with closing(heliosvfs.connect(path, key=KEY, audit=policy, rotation_interval_days=30)) as connection:
        assert isinstance(connection, heliosvfs.AuditedConnection)
        assert connection.auditor is not None
        metrics.watch(connection)
        connection.execute("SELECT 1 FROM t").fetchall()
        found = values()
        assert found[f"heliosvfs_audit_events_waiting{label}"] == connection.auditor.unwritten() >= 1
        assert 0 <= found[f"heliosvfs_key_age_days{label}"] < 1
        assert found[f"heliosvfs_key_rotation_due{label}"] == 0
        connection.rotation_interval_days = 1e-9
        assert values()[f"heliosvfs_key_rotation_due{label}"] == 1
        connection.auditor.flush()
        found = values()
        assert found[f"heliosvfs_audit_events_waiting{label}"] == 0
        with closing(heliosvfs.connect(path, key=KEY)) as other:
            assert found[f"heliosvfs_audit_events_total{label}"] == other.execute("SELECT max(id) FROM __audit_log").get == 3
    assert label not in metrics.render()


def test_failures_and_changes_are_counted(path: Path, tmp_path: Path, before: dict[str, float]) -> None:
    def gone_up(name: str) -> float:
        return values()[name] - before[name]

    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        assert gone_up('heliosvfs_unlocks_total{result="ok"}') == 1
        with pytest.raises(heliosvfs.WrongKeyError):
            heliosvfs.connect(path, key=bytes(32))
        assert gone_up('heliosvfs_unlocks_total{result="failed"}') == 1
        with pytest.raises(heliosvfs.KeyUnavailableError):
            heliosvfs.connect(path, key=heliosvfs.KeyFromEnvironment("HELIOSVFS_NOT_THERE"))
        assert gone_up("heliosvfs_key_source_failures_total") == 1
        connection.add_key(bytes(range(1, 33)), label="second")
        connection.revoke_key("second")
        assert gone_up("heliosvfs_key_changes_total") == 2
        rotate(connection)
        assert gone_up('heliosvfs_rotations_total{result="ok"}') == 1
        backup(connection, tmp_path / "backup.db")
        with pytest.raises(heliosvfs.UsageError):
            backup(connection, tmp_path / "backup.db")
        assert gone_up('heliosvfs_backups_total{result="ok"}') == gone_up('heliosvfs_backups_total{result="failed"}') == 1
    assert gone_up("heliosvfs_authentication_failures_total") == 0
    with path.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\0" * 16)
    with closing(heliosvfs.connect(path, key=KEY)) as connection, pytest.raises(heliosvfs.TamperedError):
        connection.execute("SELECT sum(length(x)) FROM t").fetchall()
    assert gone_up("heliosvfs_authentication_failures_total") >= 1


def test_what_lies_behind_the_end_of_a_wal_is_no_alarm(path: Path, tmp_path: Path, before: dict[str, float]) -> None:
    """After a crash SQLite reads the log up to the first frame that is none: one of an earlier log, under other salts."""
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.wal_autocheckpoint(0)
        connection.execute("UPDATE t SET x = zeroblob(3000)").fetchall()
        connection.wal_checkpoint()
        connection.execute("INSERT INTO t VALUES(1)").fetchall()  # begins the log anew, over the first of the old frames
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"crashed.db{suffix}")
    with closing(heliosvfs.connect(tmp_path / "crashed.db", key=KEY)) as connection:
        assert connection.execute("SELECT count(*) FROM t").get == 201
    name = "heliosvfs_authentication_failures_total"
    assert values()[name] == before[name]


def test_a_forked_child_counts_from_zero(path: Path) -> None:
    script = f"""
import os, sys
import heliosvfs
from heliosvfs import metrics
connection = heliosvfs.connect({str(path)!r}, key={KEY!r})
metrics.watch(connection)
connection.execute("SELECT sum(length(x)) FROM t").fetchall()
if not os.fork():
    print(metrics.render(), flush=True)
    os._exit(0)
os.wait()
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'heliosvfs_pages_opened_total{file="database"} 0\n' in said
    assert 'heliosvfs_unlocks_total{result="ok"} 0\n' in said
    assert "heliosvfs_connections 0\n" in said
    assert str(path) not in said


def test_prometheus_reads_the_text_and_odd_names_in_it(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    odd = tmp_path / 'a "b" \\ c\nd.db'
    with closing(heliosvfs.connect(odd, key=KEY)) as connection:
        metrics.watch(connection)
        families = list(parser.text_string_to_metric_families(metrics.render()))
    assert {family.type for family in families} == {"counter", "gauge"}
    assert all(family.documentation for family in families)
    (age,) = (family for family in families if family.name == "heliosvfs_key_age_days")
    assert [sample.labels["database"] for sample in age.samples if "\n" in sample.labels["database"]] == [str(odd)]


def test_a_file_of_metrics_is_replaced_as_a_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    file = tmp_path / "heliosvfs.prom"
    metrics.write(file)
    with file.open() as first:
        metrics.write(file)
        assert first.read().endswith("\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    with pytest.raises(FileNotFoundError):
        metrics.write(tmp_path / "no" / "folder")


def test_a_file_is_written_again_and_again_and_at_the_end(tmp_path: Path) -> None:
    script = f"""
import os, time
from heliosvfs import metrics, notices
path = {str(tmp_path / "x.prom")!r}
metrics.write_regularly(path, interval=0.01)
first = os.stat(path).st_ino
metrics.write_regularly(path)
while os.stat(path).st_ino == first:
    time.sleep(0.01)
notices.tell("KEYS CHANGED")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert "heliosvfs_key_changes_total 1\n" in (tmp_path / "x.prom").read_text()
    with pytest.raises(heliosvfs.UsageError, match="metrics can't be written"):
        metrics.write_regularly(tmp_path / "no" / "x.prom")


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), metrics.handler()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_handler_answers_for_its_path_alone(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("GET", "/metrics")
        answer = client.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "heliosvfs_connections" in answer.read().decode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("GET", "/")
        assert client.getresponse().status == 404


@pytest.mark.parametrize(
    ("method", "status", "has_body"), [("GET", "200 OK", True), ("HEAD", "200 OK", False), ("POST", "405", False)]
)
def test_the_application_keeps_to_wsgi(method: str, status: str, has_body: bool) -> None:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/"}
    setup_testing_defaults(environ)
    said: list[str] = []

    def start(line: str, *_: Any) -> Any:
        said.append(line)
        return lambda _: None

    application = metrics.application if method == "POST" else validator(metrics.application)
    result = application(environ, start)
    body = b"".join(result)
    if hasattr(result, "close"):
        result.close()
    assert said[0].startswith(status)
    assert bool(body) is has_body


def test_a_listener_that_goes_while_others_are_told_spoils_nothing() -> None:
    told = []

    def first(notice: notices.Notice) -> None:
        notices.unlisten(first)
        told.append(("first", notice.operation))

    def second(notice: notices.Notice) -> None:
        told.append(("second", notice.operation))

    notices.listen(first)
    notices.listen(second)
    try:
        notices.tell("TEST")
        notices.tell("TEST")
    finally:
        notices.unlisten(second)
    assert told == [("first", "TEST"), ("second", "TEST"), ("second", "TEST")]
