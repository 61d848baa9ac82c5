"""A process that works on an audited database until SIGTERM ends it; prints "ready" when it may come.

Its arguments are the database and a scenario, a function of this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import heliosvfs
from heliosvfs import activity, metrics, shutdowns
from heliosvfs.audit import Policy

KEY = bytes(range(32))
POLICY = Policy(log_select=True, flush_interval=3600.0)  # so that nothing but the end writes what waits


def ready() -> None:
    print("ready", flush=True)


def forever() -> None:
    while True:
        time.sleep(60)


def opened(path: str) -> Any:
    return heliosvfs.connect(path, key=KEY, audit=POLICY)


def idle(path: str) -> None:
    connection = opened(path)
    connection.execute("SELECT balance FROM account").fetchall()
    metrics.write_regularly(path + ".prom", 3600.0)
    ready()
    forever()


def event_loop(path: str) -> None:
    """Let an event loop have the one file descriptor that Python's C handler wakes."""
    connection = opened(path)
    connection.execute("SELECT balance FROM account").fetchall()

    async def work() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
        asyncio.get_running_loop().call_soon(ready)
        await asyncio.Event().wait()

    asyncio.run(work())


def in_transaction(path: str) -> None:
    connection = opened(path)
    connection.execute("BEGIN")
    connection.execute("UPDATE account SET balance = balance - 50 WHERE id = 1")
    ready()
    forever()


def transfers(path: str) -> None:
    """Move money in several threads, each statement's failure ignored: an end in the middle may not make any."""

    def move() -> None:
        connection = opened(path)
        while True:
            for sql in (
                "BEGIN IMMEDIATE",
                "UPDATE account SET balance = balance - 1 WHERE id = 1",
                "UPDATE account SET balance = balance + 1 WHERE id = 2",
                "COMMIT",
            ):
                with contextlib.suppress(Exception):  # as careless as a program can be
                    connection.execute(sql)
            done.set()

    done = threading.Event()
    for _ in range(2):
        threading.Thread(target=move, daemon=True).start()
    done.wait()
    ready()
    forever()


def long_query(path: str) -> None:
    connection = opened(path)
    threading.Timer(0.5, ready).start()
    connection.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n").fetchall()


def own_handler(path: str) -> None:
    connection = opened(path)

    def handler(*_: object) -> None:
        try:
            connection.execute("SELECT 1")
        except heliosvfs.HeliosError:
            raise
        except Exception as error:  # noqa: BLE001 - named below
            print(type(error).__name__, flush=True)
        sys.exit(7)

    signal.signal(signal.SIGTERM, handler)
    shutdowns.install(60)
    ready()
    forever()


def later_handler(path: str) -> None:
    connection = opened(path)
    shutdowns.install(60)

    def handler(*_: object) -> None:
        print(connection.execute("SELECT count(*) FROM account").fetchall(), flush=True)
        print(shutdowns.close_all(60), flush=True)
        sys.exit(8)

    signal.signal(signal.SIGTERM, handler)
    ready()
    forever()


def stuck(path: str) -> None:
    """Hold a transaction in a statement that does not end."""
    connection = opened(path)

    def work() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE account SET balance = 0")
        begun.set()
        connection.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n").fetchall()

    begun = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    ready()
    forever()


def forked(path: str) -> None:
    """Let a child get the signal, and go on."""
    connection = opened(path)
    child = os.fork()
    if not child:
        shutdowns.install(60.0)
        mine = heliosvfs.connect(path, key=KEY, audit=POLICY)
        mine.execute("UPDATE account SET balance = 1 WHERE id = 2")
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
        mine.execute(endless).fetchall()
    while connection.execute("SELECT balance FROM account WHERE id = 2").get != 1:
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    connection.execute("UPDATE account SET balance = 2 WHERE id = 2")
    ready()
    forever()


if __name__ == "__main__":
    where, scenario = sys.argv[1:3]
    activity.open_log(where + ".log", verbose=True)
    if scenario not in ("own_handler", "later_handler"):
        shutdowns.install(1.0 if scenario == "stuck" else 60.0)
    globals()[scenario](where)
