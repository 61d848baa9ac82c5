"""Measure rotation of the key, heliosvfs beside SQLCipher's PRAGMA rekey: ``python bench/rotation.py --megabytes 200``.

Both replace the key that the pages are under, in WAL mode. heliosvfs copies the database onto itself through the WAL, in one
transaction, and empties the WAL; SQLCipher writes every page anew in one transaction, which stays in the WAL until a checkpoint:
that is measured too. Each is also measured while another process reads and a third one writes, every few milliseconds.

    time            seconds until the new key is in force and the old one gone
    written         bytes that the process handed to the operating system (/proc/PID/io, wchar), as a multiple of the database
    extra disk      largest size of journal and WAL beside the database, as a multiple of it
    reader, writer  longest time that one of their statements took meanwhile, and how many of them failed
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

KEY, NEW_KEY = bytes(range(32)), bytes(range(1, 33))
BATCH = 256  # rows of 4000 bytes: a megabyte
PATIENCE = 30.0  # seconds that reader and writer wait for a lock
PAUSE = 0.005  # seconds between their statements


def connect(kind: str, path: str) -> Any:
    """Open a database the way its users do."""
    if kind == "heliosvfs":
        import heliosvfs  # noqa: PLC0415 - only one of the two is installed

        return heliosvfs.connect(path, key=KEY, busy_timeout=PATIENCE)
    from sqlcipher3 import dbapi2  # type: ignore[import-not-found] # noqa: PLC0415 - the same

    connection = dbapi2.connect(path, timeout=PATIENCE, isolation_level=None)
    connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    return connection


def fill(kind: str, path: str, megabytes: int) -> None:
    """Make the database."""
    connection = connect(kind, path)
    connection.execute("CREATE TABLE ballast(content BLOB)")
    connection.execute("CREATE TABLE probe(n INTEGER)")
    connection.execute("INSERT INTO probe VALUES(0)")
    for _ in range(megabytes):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO ballast VALUES(randomblob(?))", [(4000,)] * BATCH)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def probe(kind: str, path: str, statement: str) -> None:
    """Run a statement again and again until standard input ends; report the longest time and the failures."""
    connection = connect(kind, path)
    stop = threading.Event()

    def wait() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    print("ready", flush=True)
    longest, failures, count = 0.0, 0, 0
    while not stop.is_set():
        began = time.perf_counter()
        try:
            connection.execute(statement).fetchall()
        except Exception:  # noqa: BLE001 - what it is depends on the library; that it failed is what counts
            failures += 1
        longest = max(longest, time.perf_counter() - began)
        count += 1
        time.sleep(PAUSE)
    print(json.dumps({"longest": longest, "failures": failures, "count": count}))


def written() -> int:
    """Return the bytes that this process has handed to the operating system."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return 0
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("wchar:")))


def rotate(kind: str, path: str) -> None:
    """Replace the key, and report what it cost."""
    connection = connect(kind, path)
    connection.execute("SELECT count(*) FROM probe").fetchall()
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.is_set():
            beside = [f"{path}{suffix}" for suffix in ("-wal", "-journal")]
            largest = max(largest, sum(os.path.getsize(name) for name in beside if os.path.exists(name)))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, began = written(), time.perf_counter()
    error = ""
    try:
        if kind == "heliosvfs":
            connection.rotate(busy_timeout=PATIENCE)
        else:
            connection.execute(f"PRAGMA rekey = \"x'{NEW_KEY.hex()}'\"").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except Exception as problem:  # noqa: BLE001 - reported as the outcome
        error = f"{type(problem).__name__}: {problem}"
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "written": written() - before, "beside": largest, "error": error}))


def run(python: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start this program in another environment; what the library itself logs is left out."""
    return subprocess.Popen(
        [str(python), __file__, "child", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def measure(python: Path, kind: str, megabytes: int, directory: Path, *, busy: bool) -> dict[str, Any]:
    """Make a database, rotate its key once, and return what was found."""
    path = str(directory / f"{kind}-{time.monotonic_ns()}.db")
    run(python, "fill", kind, path, str(megabytes)).communicate()
    size = os.path.getsize(path)
    probes = {}
    if busy:
        for name, statement in (("reader", "SELECT n FROM probe"), ("writer", "UPDATE probe SET n = n + 1")):
            process = probes[name] = run(python, "probe", kind, path, statement)
            assert process.stdout is not None  # noqa: S101 - a pipe
            process.stdout.readline()
    output, _ = run(python, "rotate", kind, path).communicate()
    found = {"size": size, **json.loads(output)}
    for name, process in probes.items():
        output, _ = process.communicate()
        found[name] = json.loads(output)
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(path + suffix).unlink(missing_ok=True)
    return found


def row(kind: str, situation: str, found: list[dict[str, Any]]) -> str:
    """Return a line of the table: medians."""

    def median(*names: str) -> float:
        values = []
        for one in found:
            value: Any = one
            for name in names:
                value = value[name]
            values.append(float(value))
        return statistics.median(values)

    size = median("size")
    errors = {one["error"] for one in found if one["error"]}
    cells = [f"{median('seconds'):.2f} s", f"{median('written') / size:.2f} x", f"{median('beside') / size:.2f} x"]
    for name in ("reader", "writer"):
        if name in found[0]:
            failures = sum(one[name]["failures"] for one in found)
            cells.append(f"{median(name, 'longest') * 1000:.0f} ms, {failures} failed")
        else:
            cells.append("-")
    cells.append("; ".join(sorted(errors)) or "done")
    return f"| {kind} | {situation} | " + " | ".join(cells) + " |"


def main() -> int:
    """Measure what the command line asks for."""
    if sys.argv[1:2] == ["child"]:
        what, kind, path, *rest = sys.argv[2:]
        if what == "fill":
            fill(kind, path, int(rest[0]))
        elif what == "probe":
            probe(kind, path, rest[0])
        else:
            rotate(kind, path)
        return 0
    from pagebench import subjects  # noqa: PLC0415 - the children do without
    from pagebench.environments import UnavailableError, default_directory, python_for  # noqa: PLC0415 - the same

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where databases are made (default: the temporary directory)")
    parser.add_argument("--env-dir", type=Path, default=default_directory(), help="where SQLCipher's environment is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    options = parser.parse_args()
    pythons = {}
    for kind in ("heliosvfs", "sqlcipher"):
        try:
            pythons[kind] = python_for(subjects.BY_NAME[kind], options.env_dir)
        except UnavailableError as error:
            print(f"SKIPPED {kind}: {error}", file=sys.stderr)
    everything = []
    print(f"{options.megabytes} MB, median of {options.rounds}, pages of 4096 bytes, raw keys, synchronous FULL\n")
    print("| | | time | written | extra disk | reader waits | writer waits | outcome |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="rotation-", dir=options.dir) as directory:
        for busy in (False, True):
            for kind, python in pythons.items():
                found = [measure(python, kind, options.megabytes, Path(directory), busy=busy) for _ in range(options.rounds)]
                situation = "in use" if busy else "alone"
                everything.append({"kind": kind, "situation": situation, "rounds": found})
                print(row(kind, situation, found), flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))
    return 0 if len(pythons) == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
