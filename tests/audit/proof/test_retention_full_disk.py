"""A prune that fails, or an export that finds no room, leaves nothing in the way of the next, and an archive stays while it may be all there is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosvfs
from heliosaudit.errors import AuditError, AuditWriteError
from heliosaudit.exports import export
from heliosaudit.verifications import verify
from tests.audit.proof.failing_disk import FailingDisk, audited, opened, pruned

ROOT = Path(__file__).parents[3]
KINDS = [("plain", "delete"), ("plain", "wal"), ("encrypted", "delete"), ("encrypted", "wal")]
ARCHIVE = ["a.gz", "a.gz.manifest.json", "a.gz.values.jsonl.gz"]


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    base = FailingDisk()
    vfs = heliosvfs.HeliosVFS("over-failing-disk", base="failing-disk")
    yield base
    vfs.unregister()
    base.unregister()


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    kind, mode = request.param
    path = tmp_path_factory.mktemp("made") / "db"
    audited(path, kind, mode)
    return path, kind


def copied(made: tuple[Path, str], folder: Path) -> tuple[Path, str]:
    folder.mkdir()
    shutil.copy(made[0], folder / "db")
    return folder / "db", made[1]


def archived(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file.name.startswith("a.gz"))


def require_no_loss(path: Path, kind: str) -> bool:
    """See that each event is in the log or in a whole archive, as somebody who finds the files; tells whether the log has all."""
    with closing(opened(path, kind)) as connection:
        assert verify(connection).ok
        first = connection.execute("SELECT min(id) FROM __audit_log").get
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        assert (connection.execute("SELECT count(*) FROM __audit_values").get > 0) == (first == 1)
    if first == 1:
        return True
    data = (path.parent / "a.gz").read_bytes()
    manifest = json.loads((path.parent / "a.gz.manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert (manifest["first"], manifest["last"]) == (1, first - 1)
    assert len(gzip.decompress(data).splitlines()) == first - 1
    assert manifest["values_sha256"] == hashlib.sha256((path.parent / "a.gz.values.jsonl.gz").read_bytes()).hexdigest()
    return False


def as_a_crash_leaves_it(path: Path, folder: Path) -> Path:
    """Copy what is on the disk now, while connections have it open."""
    folder.mkdir()
    for file in path.parent.iterdir():
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, folder / file.name)
    return folder / "db"


@pytest.mark.parametrize("how", ["full", "once", "sync", "deleted"])
def test_after_a_failure_at_any_moment_a_prune_works_the_next_time(
    made: tuple[Path, str], tmp_path: Path, disk: FailingDisk, how: str
) -> None:
    vfs, after, outcomes = "failing-disk" if made[1] == "plain" else "over-failing-disk", 0, set()
    while True:
        path, kind = copied(made, tmp_path / f"{after}")
        connection = opened(path, kind, vfs)
        with closing(connection):
            disk.arm(how, after)
            outcome, said = "done", ""
            try:
                pruned(connection, path.parent / "a.gz")
            except AuditError as error:
                outcome, said = "in doubt", str(error)
            except apsw.Error:
                outcome = "undone"
            assert outcome != "in doubt" or all(name in said for name in ARCHIVE)
            assert archived(path) == ([] if outcome == "undone" else ARCHIVE)
            crashed = as_a_crash_leaves_it(path, path.parent / "crashed")
            happened, disk.left = disk.happened, None
        for where in (path, crashed):
            if require_no_loss(where, kind):
                assert outcome != "done"
                for name in archived(where):  # as the message says
                    (where.parent / name).unlink()
                with closing(opened(where, kind)) as again:
                    assert pruned(again, where.parent / "a.gz").first == 1
            assert not require_no_loss(where, kind)
        outcomes.add(outcome)
        shutil.rmtree(path.parent)
        after += 1
        if not happened:
            break
    assert outcome == "done"
    assert after > 1 or how == "deleted"
    if how in {"full", "once"}:
        assert outcomes == {"done", "undone"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("made", [KINDS[0], KINDS[3]], ids="-".join, indirect=True)
def test_a_prune_that_is_killed_at_any_moment_loses_nothing(made: tuple[Path, str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "audit")])}
    command = [sys.executable, "-m", "tests.audit.proof.failing_disk"]
    states, after = [], 0
    while True:
        path, kind = copied(made, tmp_path / f"{after}")
        done = subprocess.run([*command, str(path), kind, str(after)], capture_output=True, check=False, env=environment)
        states.append(require_no_loss(path, kind))
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        shutil.rmtree(path.parent)
        after += 1 + after // 3  # the more operations, the larger the steps
    assert states == sorted(states, reverse=True)
    assert (states[0], states[-1]) == (True, False)


def test_an_export_that_can_not_be_recorded_is_whole_and_says_what_to_do(
    made: tuple[Path, str], tmp_path: Path, disk: FailingDisk
) -> None:
    path, kind = copied(made, tmp_path / "x")
    with closing(opened(path, kind, "failing-disk" if kind == "plain" else "over-failing-disk")) as connection:
        disk.arm("full", 0)
        with pytest.raises(AuditWriteError, match="remove its files only to export again") as caught:
            export(connection, path.parent / "a.gz")
        disk.left = None
        assert isinstance(caught.value.__cause__, apsw.FullError)
        manifest = json.loads((path.parent / "a.gz.manifest.json").read_text())
        assert manifest["sha256"] == hashlib.sha256((path.parent / "a.gz").read_bytes()).hexdigest()
        for name in archived(path):
            (path.parent / name).unlink()
        assert export(connection, path.parent / "a.gz").first == 1


MOUNT = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=4m none "$1" && shift && exec "$@"', "sh"]
ON_A_SMALL_DISK = """
import os, subprocess, sys
from contextlib import closing
from pathlib import Path
import apsw
from heliosaudit.errors import AuditWriteError
from heliosaudit.exports import export
from heliosaudit.checkpoints import SigningKey
from heliosvfs import DiskFullError
from tests.audit.proof.failing_disk import audited, opened, pruned

folder, mode = Path(sys.argv[1]), sys.argv[2]
audited(folder / "db", "encrypted", mode)
outcomes = set()
works = {
    "prune": lambda connection: pruned(connection, folder / "a.gz"),
    "export": lambda connection: export(connection, folder / "a.gz"),
    "make-key": lambda _: SigningKey.make("a/b").save(folder / "a.gz"),
}
work = works[sys.argv[3]]
for left in (0, 4096, 8192, 16384, 32768, 65536):
    with closing(opened(folder / "db", "encrypted")) as connection:
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
        (folder / "ballast").write_bytes(bytes(max(0, free - left)))
        try:
            work(connection)
            outcomes.add("done")
            break
        except AuditWriteError:  # the export is whole, and could not be recorded
            assert sys.argv[3] == "export" and (folder / "a.gz").exists()
            for name in ("a.gz", "a.gz.manifest.json"):
                (folder / name).unlink()
        except Exception as error:
            while error is not None and not isinstance(error, (DiskFullError, OSError)):
                error = error.__cause__
            assert error is not None and (error.filename if isinstance(error, OSError) else error.file).startswith(str(folder))
            outcomes.add("no room")
        finally:
            (folder / "ballast").unlink()
    assert not [name for name in os.listdir(folder) if name.startswith("a.gz")], os.listdir(folder)
if "done" not in outcomes:
    with closing(opened(folder / "db", "encrypted")) as connection:
        work(connection)
print(*sorted(outcomes))
"""


@pytest.mark.parametrize(
    ("mode", "what"), [("delete", "prune"), ("wal", "prune"), ("delete", "export"), ("wal", "export"), ("wal", "make-key")]
)
def test_a_disk_that_is_really_full_leaves_nothing_in_the_way(tmp_path: Path, mode: str, what: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "audit")])}
    command = [*MOUNT, str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: needs user namespaces (unshare -Urm)")
    command += [sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path), mode, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "no room" in done.stdout
    assert not list(tmp_path.iterdir())  # it was the tmpfs that was written
