"""One crash: record a workload, build what the disk could hold, and require everything that a user may expect of it.

The journal modes memory and off are left out: in them SQLite itself does not survive a crash within a transaction.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import struct
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from heliosvfs import FormatError
from tests.crash.disks import after_power_cut, after_process_death
from tests.crash.recorder import Create, Delete, Log, RecordingVFS, Sync, SyncDirectory, Truncate
from tests.crash.subjects import Helios, is_created
from tests.crash.workloads import WORKLOADS, Bench, KeyMark, Mark, Mode, content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import apsw

    from tests.crash.subjects import Subject

__all__ = ["Crash", "Recording", "crashes", "record", "survive"]

WAL_HEADER = 32  # SQLite file format 4.1
WAL_MAGIC = 0x377F0682

_numbers = itertools.count()


@dataclass(frozen=True)
class Recording:
    """A workload that ran to its end over the recorder."""

    subject: Subject
    mode: Mode
    path: Path
    log: Log
    marks: list[Mark]
    key_marks: list[KeyMark]
    schemas: tuple[str, ...]


@dataclass(frozen=True)
class Crash:
    """A crash point and everything that chance decides about it.

    Attributes:
        point: Number of operations that had reached the disk's cache.
        seed: Decides the fate of those that were not synced, and whether recovery is cut off once more.
        kind: "power" or "death" (of the process).
    """

    point: int
    seed: int
    kind: str


def record(subject: Subject, mode: Mode, directory: Path) -> Recording:
    """Run a workload to its end and write down what reached the disk."""
    path = directory / "main"
    with _recorder(mode) as recorder, subject.stacked(recorder.name) as vfs:
        recorder.log = log = Log()
        bench = Bench(subject, vfs, path, log, mode)
        try:
            WORKLOADS[mode.workload](bench)
        finally:
            bench.close()
    return Recording(subject, mode, path, log, bench.marks, bench.key_marks, bench.schemas)


def crashes(recording: Recording, count: int, seed: int, kind: str) -> list[Crash]:
    """Choose crash points: in the creation, as a commit returns, beside syncs and changes of names, and anywhere."""
    rng = Random(f"{recording.mode} {kind} {seed}")
    operations = recording.log.operations
    turns = [
        place
        for place, operation in enumerate(operations)
        if isinstance(operation, (Sync, SyncDirectory, Create, Delete, Truncate))
    ]
    created = recording.marks[1].returned
    chosen = []
    for _ in range(count):
        where = rng.random()
        if where < 0.15:
            point = rng.randint(0, created)
        elif where < 0.25:
            point = rng.choice(recording.marks).returned
        elif where < 0.6:
            point = rng.choice(turns) + rng.choice([0, 0, 1, 2])
        else:
            point = rng.randint(0, len(operations))
        chosen.append(Crash(min(point, len(operations)), rng.randrange(1 << 32), kind))
    return chosen


def survive(recording: Recording, crash: Crash) -> None:
    """Require that the database survives one crash.

    Raises:
        AssertionError: It did not; the message says what is needed to see it again.
    """
    rng = Random(crash.seed)
    mode = recording.mode
    ordered = mode.synchronous != "extra"
    if crash.kind == "death":
        files = after_process_death(recording.log, crash.point)
    else:
        files = after_power_cut(recording.log, crash.point, rng, psow=mode.psow, ordered=ordered)
    try:
        log = _recovered(recording, files, crash)
        if crash.kind == "power" and len(log) and rng.random() < 0.4:
            # the power fails again during the recovery from the first failure
            again = after_power_cut(log, rng.randint(0, len(log)), rng, psow=mode.psow, ordered=ordered)
            _recovered(recording, again, crash)
    except Exception as error:
        message = (
            f"{type(error).__name__}: {error}\nsubject {recording.subject.name!r}, {mode!r}, {crash!r}; "
            f"{len(recording.log)} operations, the disk held { {name: len(data) for name, data in files.items()} }\n"
            f"allowed: {[mark.label for mark in _expected(recording, crash)]}"
        )
        raise AssertionError(message) from error


def _expected(recording: Recording, crash: Crash) -> list[Mark]:
    """Return the contents that may be found: the last durable one, and those whose commit had begun since."""
    durable = crash.point
    if crash.kind == "power":
        durable = _last_barrier(recording, crash.point)
    first = max(number for number, mark in enumerate(recording.marks) if mark.returned <= durable)
    return [mark for mark in recording.marks[first:] if mark.began < crash.point or mark is recording.marks[first]]


def _last_barrier(recording: Recording, point: int) -> int:
    """Return the latest log position so that what was committed before it is durable at ``point``.

    Where SQLite promises no durability, a later sync gives it: of the WAL, of the truncated journal, or of the folder
    from which a journal was deleted (only EXTRA syncs that at once).
    """
    mode = recording.mode
    if mode.workload == "two files" and mode.synchronous == "normal":
        return 0
    promised = mode.synchronous == "extra" or (mode.synchronous == "full" and mode.journal != "delete")
    if promised or mode.journal == "persist":  # a journal header is overwritten with a sync of its own
        return point
    for place in range(point - 1, -1, -1):
        operation = recording.log.operations[place]
        if mode.journal == "delete" and isinstance(operation, SyncDirectory):
            return place
        if mode.journal != "delete" and isinstance(operation, Sync) and operation.name.endswith(("-wal", "-journal")):
            return place
    return 0


def _recovered(recording: Recording, files: Mapping[str, bytes], crash: Crash) -> Log:
    """Open what a crash left, require all of it, and return the log of the recovery."""
    subject, mode, path = recording.subject, recording.mode, recording.path
    expected = _expected(recording, crash)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    for name, data in files.items():
        path.with_name(name).write_bytes(data)
    with _recorder(mode) as recorder, subject.stacked(recorder.name) as vfs:
        if subject.encrypted:
            for schema in recording.schemas:
                subject.intrude(path.with_name(schema), recorder.name)
            left = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
            assert _substance(left, mode) == _substance(files, mode), "an intruder changed the files"
            files = left
        recorder.log = log = Log(files)
        if expected[0] is recording.marks[0] and any(subject.is_foreign(files.get(name, b"")) for name in recording.schemas):
            _require_refusal(recording, vfs)
            return log
        with contextlib.closing(_opened(recording, vfs)) as connection:
            for schema in recording.schemas:
                verdict = connection.execute(f"PRAGMA {schema}.integrity_check").fetchall()
                assert verdict == [("ok",)], verdict
            _require_content(recording, connection, expected)
            filled = [name for name in recording.schemas if connection.execute(f"PRAGMA {name}.page_count").fetchall() != [(0,)]]
        recorder.log = None
        _require_keys(recording, crash, recorder.name)
        for schema in filled:
            garbage = mode.journal == "persist" and not mode.psow
            subject.check(path.with_name(schema), vfs, tolerates_a_bad_journal_header=garbage)
        with contextlib.closing(_opened(recording, vfs)) as connection:
            for schema in recording.schemas:
                with contextlib.closing(subject.connect(path.with_name(f"copy of {schema}"), vfs)) as copy:
                    subject.backup(connection, copy, schema)
                    assert content(copy, ("main",)) == content(connection, (schema,)), f"the backup of {schema} differs"
                connection.execute(f"CREATE TABLE {schema}.afterwards (x)")
                connection.execute(f"INSERT INTO {schema}.afterwards VALUES (1)")
        with contextlib.closing(_opened(recording, vfs)) as connection:
            for schema in recording.schemas:
                assert connection.execute(f"SELECT x FROM {schema}.afterwards").fetchall() == [(1,)], "a later commit is lost"
                assert connection.execute(f"PRAGMA {schema}.integrity_check").fetchall() == [("ok",)]
    return log


def _require_refusal(recording: Recording, vfs: str) -> None:
    """Require that a file that nobody can know for a database of ours is not touched."""
    before = {file.name: file.read_bytes() for file in recording.path.parent.iterdir()}
    with contextlib.suppress(FormatError):
        _opened(recording, vfs).close()
        message = "a foreign file was opened"
        raise AssertionError(message)
    assert before == {file.name: file.read_bytes() for file in recording.path.parent.iterdir()}, "a foreign file was changed"


def _substance(files: Mapping[str, bytes], mode: Mode) -> dict[str, bytes]:
    """Leave out files that an intruder makes or deletes and that hold nothing.

    They are an empty database, what lies beside a database whose creation may begin anew, a WAL without frames or with a
    torn header, and a journal whose header became garbage (with the super-journal that it names): both headers are synced
    before anything depends on the file. That nothing is lost with them shows in the recovery, which follows the intrusion.
    """
    return {
        name: data
        for name, data in files.items()
        if (data if name in {"main", "other"} else "-mj" in name or is_created(files.get(name.partition("-")[0], b"")))
        and not (name.endswith("-wal") and not _holds_frames(data))
        and not (name.endswith("-journal") and data[:1] not in {b"", b"\0"} and not mode.psow)
        and not ("-mj" in name and not mode.psow)
    }


def _holds_frames(wal: bytes) -> bool:
    """Tell whether a WAL's header is whole and something follows (SQLite file format 4.1 and 4.2)."""
    words = struct.unpack(">8I", wal[:WAL_HEADER].ljust(WAL_HEADER, b"\0"))
    order = ">" if words[0] & 1 else "<"
    first = second = 0
    for x, y in struct.iter_unpack(f"{order}2I", wal[:24].ljust(24, b"\0")):
        first = (first + x + second) & 0xFFFFFFFF
        second = (second + y + first) & 0xFFFFFFFF
    return len(wal) > WAL_HEADER and words[0] & ~1 == WAL_MAGIC and words[6:] == (first, second)


def _require_keys(recording: Recording, crash: Crash, base: str) -> None:
    """Require that the keys that open the database are those after the last change of slots, or one that had begun."""
    assert isinstance(recording.subject, Helios) or not recording.key_marks
    returned = [mark.returned <= crash.point for mark in recording.key_marks]
    if not any(returned) or not isinstance(recording.subject, Helios):
        return
    last = max(number for number, done in enumerate(returned) if done)
    allowed = [mark.keys for mark in recording.key_marks[last:] if mark.began < crash.point or mark.returned <= crash.point]
    found = recording.subject.keys(recording.path, base)
    assert found in allowed, f"opened by {sorted(found)}, not by one of {[sorted(keys) for keys in allowed]}"


def _opened(recording: Recording, vfs: str) -> apsw.Connection:
    """Open all files of a database."""
    connection = recording.subject.connect(recording.path, vfs)
    for schema in recording.schemas:
        if schema != "main":
            recording.subject.attach(connection, recording.path.with_name(schema), schema)
    return connection


def _require_content(recording: Recording, connection: apsw.Connection, expected: list[Mark]) -> None:
    """Require one of the allowed contents, and say which other one was found."""
    found = content(connection, recording.schemas)
    if found not in {mark.content for mark in expected}:
        others = [mark.label for mark in recording.marks if mark.content == found]
        message = f"content is that after {others}" if others else "content was never committed"
        raise AssertionError(message)


@contextlib.contextmanager
def _recorder(mode: Mode) -> Iterator[RecordingVFS]:
    """Register a recorder for a while."""
    recorder = RecordingVFS(f"recorder-{next(_numbers)}")
    recorder.psow = mode.psow
    try:
        yield recorder
    finally:
        recorder.unregister()
