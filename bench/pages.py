"""Measure plain SQLite, heliosvfs, sqlite3mc and SQLCipher side by side: ``python bench/pages.py --quick``.

Prints a table with ratios to plain and, with ``--json``, writes every timing. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from pagebench import reports, subjects, workloads
from pagebench.environments import UnavailableError, default_directory, python_for
from pagebench.rounds import Plan, WorkerError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short form: two rounds at page size 4096, a minute or two")
    parser.add_argument("--rounds", type=int, default=None, help="how often everything is measured (default 5)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows in the table (default 100000, 22 MB)")
    parser.add_argument("--page-sizes", type=int, nargs="+", metavar="N", help="default 4096 16384")
    parser.add_argument("--subjects", nargs="+", choices=list(subjects.BY_NAME), metavar="NAME", help=", ".join(subjects.BY_NAME))
    parser.add_argument("--dir", type=Path, help="where databases are made (default: the temporary directory)")
    parser.add_argument("--env-dir", type=Path, default=default_directory(), help="where the peers' environments are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every timing there")
    return parser.parse_args()


def main() -> int:
    """Measure what the command line asks for; 1 if a subject was missing, 2 if the numbers would mean nothing."""
    arguments = _arguments()
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    page_sizes = arguments.page_sizes or ([4096] if arguments.quick else [4096, 16384])
    names = arguments.subjects or [subject.name for subject in subjects.SUBJECTS if not subject.optional]
    pythons: dict[subjects.Subject, Path] = {}
    missing = {}
    for name in names:
        subject = subjects.BY_NAME[name]
        try:
            pythons[subject] = python_for(subject, arguments.env_dir)
        except UnavailableError as error:
            missing[name] = str(error)
            print(f"SKIPPED {name}: {error}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="pages-", dir=arguments.dir) as directory:
        plan = Plan(pythons, Path(directory), page_sizes, arguments.rows, rounds)
        try:
            versions = plan.versions()
            measurement = plan.measure()
        except WorkerError as error:
            print(f"stopped: {error}", file=sys.stderr)
            return 2
    records = reports.summarise(measurement)
    where = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{where}; {rounds} round(s), {arguments.rows} rows; WAL, synchronous NORMAL unless said, raw keys")
    print(f"small cache {workloads.SMALL_CACHE} pages; x is the median ratio to plain\n")
    print(reports.versions(versions))
    print(reports.table(records, list(versions)))
    verdicts = reports.verdicts(records)
    if verdicts:
        print("\ntargets at page size 4096")
    for text, met in verdicts:
        print(f"  {'met   ' if met else 'MISSED'}  {text}")
    for name, reason in missing.items():
        print(f"SKIPPED {name}: {reason}")
    if arguments.json:
        document = {"where": where, "rounds": rounds, "rows": arguments.rows, "versions": versions, "skipped": missing}
        document |= {"targets": [{"target": text, "met": met} for text, met in verdicts], "records": records}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
