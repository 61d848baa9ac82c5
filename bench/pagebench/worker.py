"""One subject in a process of its own: reads a command a line, answers with a line of JSON.

Run as ``python -m pagebench.worker NAME`` in the subject's environment. Idle workers wait in a read and use no CPU.
Keys arrive in the commands, on standard input.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pagebench import subjects, workloads


class Worker:
    """Holds the database that the workloads run on, and the connections whose opening is timed."""

    def __init__(self, subject: subjects.Subject) -> None:
        """Take on a subject."""
        self.subject = subject
        self.bench: workloads.Bench | None = None
        self.held: list[workloads.Connection] = []

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        match command["do"]:
            case "versions":
                return subjects.versions(self.subject)
            case "make":
                self.bench = workloads.Bench(
                    lambda: self._open(command),
                    Path(command["path"]),
                    command["page_size"],
                    command["rows"],
                    command["seed"],
                )
                return {}
            case "run" if self.bench:
                return asdict(workloads.BY_NAME[command["workload"]].run(self.bench))
            case "create":
                connection = self._open(command)
                connection.execute("CREATE TABLE record(id INTEGER PRIMARY KEY, body TEXT)").fetchall()
                connection.execute("INSERT INTO record(body) VALUES (?)", (workloads.MARKER,)).fetchall()
                connection.close()
                return {}
            case "open":
                subjects.driver(self.subject)  # importing is not opening
                with workloads.Stopwatch() as watch:
                    connection = self._open(command)
                    count = connection.execute("SELECT count(*) FROM record").fetchall()[0][0]
                self.held.append(connection)
                return asdict(watch.sample(1, count))
            case "close":
                for connection in [*self.held, *([self.bench.connection] if self.bench else [])]:
                    connection.close()
                return {}
        message = f"cannot {command['do']} now"
        raise RuntimeError(message)

    def _open(self, command: dict[str, Any]) -> workloads.Connection:
        key = bytes.fromhex(command["key"]) if "key" in command else command["passphrase"]
        return subjects.open_database(self.subject, command["path"], key, command["page_size"])


def main() -> None:
    """Answer commands until standard input ends."""
    worker = Worker(subjects.BY_NAME[sys.argv[1]])
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - reported to the controlling process, which stops the run
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
