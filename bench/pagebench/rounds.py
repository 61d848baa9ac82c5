"""Runs workers side by side: every timing goes round all subjects before the next, so that drift hits all alike.

In each round each subject starts in a fresh process with a fresh file: memory layout and file placement are drawn
anew, and a slow draw is one round's, not a subject's. All subjects must agree on what they read.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from pagebench.environments import BENCH, variables
from pagebench.subjects import SQLITE_MAGIC
from pagebench.workloads import MARKER, READS, WRITES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pagebench.subjects import Subject
    from pagebench.workloads import Workload

READ_STARTS = 4  # processes that read, in each round
OPENS = (
    ("open_raw", "key", 0, "open, raw key"),
    ("open_passphrase", "passphrase", 0, "open, passphrase"),
    ("open_passphrase_again", "passphrase", 1, "second connection, passphrase"),
)


class WorkerError(Exception):
    """A worker failed, or subjects disagree; the numbers would mean nothing."""


class WorkerProcess:
    """The controlling end of one worker."""

    def __init__(self, subject: Subject, python: Path) -> None:
        """Start the worker."""
        self.subject = subject
        self.process = subprocess.Popen(
            [python, "-m", "pagebench.worker", subject.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables(subject),
            cwd=BENCH,
        )
        self._commands = cast("IO[str]", self.process.stdin)
        self._answers = cast("IO[str]", self.process.stdout)

    def ask(self, do: str, **parameters: object) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            WorkerError: the worker failed or ended.
        """
        self._commands.write(json.dumps({"do": do, **parameters}) + "\n")
        self._commands.flush()
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            message = f"{self.subject.name}, {do} {parameters.get('workload', '')}: {answer['error']}"
            raise WorkerError(message)
        return answer

    def stop(self) -> None:
        """End the worker."""
        self._commands.close()
        self.process.wait(timeout=60)


@dataclass
class Series:
    """The timings of one subject at one workload, in µs a unit; one list of passes for each process that ran it."""

    wall: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)


@dataclass
class Measurement:
    """All timings, by page size, workload and subject."""

    series: dict[tuple[int, str, str], Series] = field(default_factory=lambda: defaultdict(Series))

    def add(self, page_size: int, workload: str, subject: str, answers: list[dict[str, Any]]) -> None:
        """Record what one process timed, pass by pass."""
        series = self.series[page_size, workload, subject]
        series.wall.append([answer["wall"] / answer["units"] * 1e6 for answer in answers])
        series.cpu.append([answer["cpu"] / answer["units"] * 1e6 for answer in answers])


@dataclass
class Plan:
    """What to measure."""

    pythons: dict[Subject, Path]
    directory: Path
    page_sizes: list[int]
    rows: int
    rounds: int

    def versions(self) -> dict[str, dict[str, str]]:
        """Ask each subject for its versions."""
        found = {}
        for subject, python in self.pythons.items():
            worker = WorkerProcess(subject, python)
            try:
                found[subject.name] = worker.ask("versions")
            finally:
                worker.stop()
        return found

    def measure(self) -> Measurement:
        """Run all rounds."""
        measurement = Measurement()
        for number in range(self.rounds):
            for page_size in self.page_sizes:
                print(f"round {number + 1} of {self.rounds}, page size {page_size}", file=sys.stderr, flush=True)
                self._pages_round(measurement, number, page_size)
            self._open_round(measurement, number)
        return measurement

    def _pages_round(self, measurement: Measurement, number: int, page_size: int) -> None:
        folder = self.directory / f"pages-{number}-{page_size}"
        folder.mkdir()
        keys = {subject: secrets.token_hex(32) for subject in self.pythons}
        for start in range(1 + READ_STARTS):
            workers = [WorkerProcess(subject, python) for subject, python in self.pythons.items()]
            try:
                for worker in workers:
                    worker.ask(
                        "make",
                        path=str(folder / f"{worker.subject.name}.db"),
                        key=keys[worker.subject],
                        page_size=page_size,
                        rows=self.rows,
                        seed=number * 1000 + start,
                    )
                turns = _turns(workers, number + start)
                for workload in READS if start else WRITES:
                    self._time(measurement, workload, turns, page_size)
                    if workload.name in {"bulk_insert", "rewrite"}:
                        for worker in workers:
                            _see_encryption(worker.subject, folder)
                for worker in workers:
                    worker.ask("close")
            finally:
                for worker in workers:
                    worker.stop()
        shutil.rmtree(folder)

    def _time(self, measurement: Measurement, workload: Workload, turns: Iterator[list[WorkerProcess]], page_size: int) -> None:
        """Take all passes of one workload, each subject in its turn.

        Raises:
            WorkerError: a worker failed, or the subjects did not all read the same.
        """
        answers = defaultdict(list)
        for _ in range(workload.passes):
            for worker in next(turns):
                answers[worker.subject.name].append(worker.ask("run", workload=workload.name))
            checks = {name: passes[-1]["check"] for name, passes in answers.items()}
            if len(set(checks.values())) != 1:
                message = f"subjects disagree on {workload.name}: {checks}"
                raise WorkerError(message)
        if workload.unit:
            for name, passes in answers.items():
                measurement.add(page_size, workload.name, name, passes)

    def _open_round(self, measurement: Measurement, number: int) -> None:
        """Time opening and the first read, each time in a process that opened nothing before."""
        folder = self.directory / f"open-{number}"
        folder.mkdir()
        names = {(secret, again): name for name, secret, again, _ in OPENS}
        for secret in ("key", "passphrase"):
            value = secrets.token_hex(32)
            for subject, python in _rotated(list(self.pythons.items()), number):
                where = {"path": str(folder / f"{subject.name}-{secret}.db"), "page_size": 4096, secret: value}
                for do in ("create", "open"):
                    worker = WorkerProcess(subject, python)
                    try:
                        answers = [worker.ask(do, **where)]
                        if do == "open":
                            answers.append(worker.ask(do, **where))
                            for again, answer in enumerate(answers):
                                if (secret, again) in names:
                                    measurement.add(4096, names[secret, again], subject.name, [answer])
                        worker.ask("close")
                    finally:
                        worker.stop()
                _see_encryption(subject, folder)
        shutil.rmtree(folder)


def _rotated(items: list[Any], by: int) -> list[Any]:
    by %= len(items)
    return items[by:] + items[:by]


def _turns(workers: list[WorkerProcess], start: int) -> Iterator[list[WorkerProcess]]:
    """Yield the order of each pass: each subject is first, last and in between in its turn, in both directions."""
    number = start
    while True:
        order = _rotated(workers, number // 2)
        yield order if number % 2 == 0 else order[::-1]
        number += 1


def _see_encryption(subject: Subject, folder: Path) -> None:
    """Look at the subject's files: encrypted ones show neither SQLite's header nor a row, plain ones show both.

    Raises:
        WorkerError: the files are not what the subject's column claims.
    """
    databases = list(folder.glob(f"{subject.name}*.db"))
    files = [path.read_bytes() for path in folder.glob(f"{subject.name}*.db*") if not path.name.endswith("-shm")]
    header = any(path.read_bytes().startswith(SQLITE_MAGIC) for path in databases)
    readable = any(MARKER.encode() in content for content in files)
    if not databases or header is subject.encrypted or readable is subject.encrypted:
        message = f"{subject.name}: header in plain {header}, rows in plain {readable}"
        raise WorkerError(message)
