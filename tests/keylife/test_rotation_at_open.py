"""`connect(rotation_interval_days=...)`: due dates in storage info, a warning, rotation at open."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.audit import Policy
from heliosvfs.rotation_dates import RotationDueWarning

KEY = bytes(range(32))
AT_ONCE = 1e-9  # days


def test_storage_info_tells_when_rotation_is_due(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, rotation_interval_days=90)) as connection:
        with_dates = connection.get_storage_info()
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        without = connection.get_storage_info()
    assert set(with_dates) > set(without)


def test_a_key_that_is_due_is_warned_of(tmp_path: Path) -> None:
    heliosvfs.connect(tmp_path / "db", key=KEY).close()
    with pytest.warns(RotationDueWarning), closing(heliosvfs.connect(tmp_path / "db", key=KEY, rotation_interval_days=AT_ONCE)):
        pass


def test_a_key_that_is_due_is_rotated_at_open_if_asked_and_that_is_an_event(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
        before = connection.get_storage_info()["key_epoch_created"]
    options = {"rotation_interval_days": AT_ONCE, "auto_rotate": True, "audit": Policy()}
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY, **options)) as connection:  # type: ignore[arg-type]
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert connection.get_storage_info()["key_epochs"] == 1
    with closing(heliosvfs.connect(tmp_path / "db", key=KEY)) as connection:
        assert connection.get_storage_info()["key_epoch_created"] >= before
        assert connection.execute("SELECT count(*) FROM __audit_log WHERE operation = 'ROTATE'").get == 1


def test_an_interval_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.UsageError):
        heliosvfs.connect(tmp_path / "db", key=KEY, rotation_interval_days=0)
