"""The activity log: what can't be recorded in the database, in a file that survives rotation, and never a secret."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosvfs import activity
from heliosvfs.activity import ActivityLogWarning, open_log
from heliosvfs.backup import backup, restore
from heliosvfs.notices import Notice
from heliosvfs.rotation import rotate
from tests.tamper.samples import forge

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
PASSPHRASE = "a passphrase that nobody may read"
CHEAP = heliosvfs.KdfSettings(memory_kib=19 * 1024, passes=2, lanes=1)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[activity.ActivityLog]:
    made = open_log(tmp_path / "activity.log", encryption_operations=True)
    yield made
    made.close()


def lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_each_operation_with_keys_has_its_line(tmp_path: Path, log: activity.ActivityLog) -> None:
    path = tmp_path / "clinic.db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.add_key(PASSPHRASE, label="manager", settings=CHEAP)
        connection.change_key(OTHER)
        connection.revoke_key("manager")
        rotate(connection)
        backup(connection, tmp_path / "backup.db")
        with pytest.raises(heliosvfs.UsageError):
            backup(connection, tmp_path / "backup.db")
    restore(tmp_path / "backup.db", tmp_path / "restored.db", key=OTHER)
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(path, key=PASSPHRASE)
    with pytest.raises(heliosvfs.KeyUnavailableError):
        heliosvfs.connect(path, key=heliosvfs.KeyFile(tmp_path / "missing.key"))
    found = [(line["operation"], Path(line["path"]).name, line["success"], line.get("details", {})) for line in lines(log.path)]
    there = [(name, success) for name, file, success, _ in found if file == "clinic.db"]
    assert there == [
        ("CREATE", True),
        ("KEYS CHANGED", True),
        ("KEYS CHANGED", True),
        ("KEYS CHANGED", True),
        ("ROTATION STARTED", True),
        ("KEYS CHANGED", True),
        ("KEYS CHANGED", True),
        ("ROTATION", True),
        ("BACKUP", True),
        ("BACKUP", False),
        ("UNLOCK", False),
    ]
    changes = [details for name, file, _, details in found if (name, file) == ("KEYS CHANGED", "clinic.db")]
    assert changes[0] == {"slots_added": ["manager"]}
    assert changes[2] == {"slots_removed": ["manager"]}
    assert changes[3:] == [{"data_keys": 2}, {"data_keys": 1}]
    assert found[-1] == ("KEY SOURCE", "", False, {"source": "KeyFile"})
    assert ("RESTORE", "backup.db", True) in [entry[:3] for entry in found]
    text = Path(log.path).read_text()
    assert not [secret for secret in (PASSPHRASE, KEY.hex(), OTHER.hex(), repr(KEY), repr(OTHER)) if secret in text]


def test_damage_has_its_line_with_file_and_page(tmp_path: Path, log: activity.ActivityLog) -> None:
    path = tmp_path / "clinic.db"
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(9000))")
    with path.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\0" * 16)
    with closing(heliosvfs.connect(path, key=KEY)) as connection, pytest.raises(heliosvfs.TamperedError) as caught:
        connection.execute("SELECT x FROM t").fetchall()
    found = [line for line in lines(log.path) if line["operation"] == "AUTHENTICATION FAILURE"]
    assert found[-1]["path"] == str(path)
    assert found[-1]["details"] == {"page": caught.value.page, "offset": caught.value.offset}


@pytest.mark.parametrize("copies", [(0,), (1,), (0, 1)])
def test_an_altered_superblock_is_no_unlock(tmp_path: Path, copies: tuple[int, ...]) -> None:
    """The key fits its slot, and the file is refused all the same."""
    path = tmp_path / "clinic.db"
    heliosvfs.connect(path, key=KEY).close()
    forge(path, lambda document: document["slots"][0].update(label="another"), copies)
    log = open_log(tmp_path / "verbose.log", verbose=True)
    try:
        with pytest.raises(heliosvfs.TamperedError):
            heliosvfs.connect(path, key=KEY)
        assert {line["operation"] for line in lines(log.path)} == {"AUTHENTICATION FAILURE"}
    finally:
        log.close()


def test_a_source_of_another_package_is_named_without_its_words(tmp_path: Path, log: activity.ActivityLog) -> None:
    class Chatty:
        def secret(self) -> heliosvfs.Secret:
            raise RuntimeError(f"the key is {KEY.hex()}")

    with pytest.raises(RuntimeError):
        heliosvfs.connect(tmp_path / "x.db", key=Chatty())
    assert lines(log.path)[-1]["error"] == "RuntimeError"
    assert lines(log.path)[-1]["details"] == {"source": "Chatty"}


def test_the_file_is_its_owners_alone(log: activity.ActivityLog) -> None:
    assert stat.S_IMODE(os.stat(log.path).st_mode) == 0o600


def test_a_file_that_was_moved_away_is_made_anew(log: activity.ActivityLog) -> None:
    log.write(Notice("FIRST"))
    os.rename(log.path, log.path + ".1")
    log.write(Notice("SECOND"))
    assert [line["operation"] for line in lines(log.path + ".1")] == ["FIRST"]
    assert [line["operation"] for line in lines(log.path)] == ["SECOND"]
    assert stat.S_IMODE(os.stat(log.path).st_mode) == 0o600


def test_a_file_that_was_cut_short_goes_on_at_its_new_end(log: activity.ActivityLog) -> None:
    for _ in range(3):
        log.write(Notice("FIRST"))
    os.truncate(log.path, 0)
    log.write(Notice("SECOND"))
    assert [line["operation"] for line in lines(log.path)] == ["SECOND"]


def test_processes_share_a_file_and_every_line_stays_whole(tmp_path: Path) -> None:
    script = f"""
from heliosvfs.activity import ActivityLog
from heliosvfs.notices import Notice
log = ActivityLog({str(tmp_path / "shared.log")!r})
for number in range(300):
    log.write(Notice("TEST", details={{"number": number, "padding": "x" * 300}}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    found = lines(tmp_path / "shared.log")
    assert len(found) == 900
    assert len({line["pid"] for line in found}) == 3


def test_what_can_not_be_written_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError, match="No such file"):
        open_log(tmp_path / "no" / "activity.log")
    with pytest.raises(heliosvfs.UsageError, match="directory"):
        open_log(tmp_path)


def test_what_can_not_be_written_later_is_a_warning_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = open_log(folder / "activity.log")
    try:
        before = activity.lost_lines()
        (folder / "activity.log").unlink()
        folder.rmdir()
        with pytest.warns(ActivityLogWarning, match="can't be written"), closing(heliosvfs.connect(tmp_path / "db", key=KEY)):
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unlock does not fail for it
            heliosvfs.connect(tmp_path / "other.db", key=KEY).close()
        assert log.lost == activity.lost_lines() - before == 2
    finally:
        log.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE cuts a write here")
def test_a_line_that_was_written_in_part_spoils_no_other(log: activity.ActivityLog) -> None:
    log.write(Notice("FIRST"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(log.path) + 20, hard))
    try:
        with pytest.warns(ActivityLogWarning):
            log.write(Notice("CUT"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(Notice("LAST"))
    first, cut, last = Path(log.path).read_text().splitlines()
    assert (json.loads(first)["operation"], len(cut), json.loads(last)["operation"]) == ("FIRST", 20, "LAST")


def test_a_file_that_is_opened_twice_is_written_once_with_the_wishes_of_both(tmp_path: Path) -> None:
    first = open_log(tmp_path / "activity.log", encryption_operations=False)
    try:
        assert open_log(tmp_path / "activity.log", encryption_operations=True) is first
        heliosvfs.connect(tmp_path / "db", key=KEY).close()
        assert [line["operation"] for line in lines(first.path)] == ["CREATE"]
    finally:
        first.close()
