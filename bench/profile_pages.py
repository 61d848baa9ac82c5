"""Show which Python functions a workload calls, how often for each unit: ``python bench/profile_pages.py cold_scan``.

The profiler itself costs a multiple of what it measures: trust the counts, and take times from ``pages.py``, whose
optional columns ``pass-through`` and ``one-gcm`` show the least that a Python VFS can cost.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import secrets
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # our own columns see this source tree

from pagebench import subjects, workloads  # noqa: E402


def main() -> None:
    """Run the workloads that precede the wanted one, then that under the profiler."""
    names = [workload.name for workload in (*workloads.WRITES, *workloads.READS) if workload.unit]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("workload", choices=names)
    parser.add_argument("--subject", choices=("heliosvfs", "pass-through", "one-gcm"), default="heliosvfs")
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--lines", type=int, default=15, help="functions to show")
    arguments = parser.parse_args()
    subject, key = subjects.BY_NAME[arguments.subject], secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="profile-") as directory:
        path = Path(directory) / "profiled.db"
        bench = workloads.Bench(
            lambda: subjects.open_database(subject, str(path), key, arguments.page_size),
            path,
            arguments.page_size,
            arguments.rows,
            seed=0,
        )
        for workload in (*workloads.WRITES, *workloads.READS):
            if workload.name == arguments.workload:
                break
            workload.run(bench)
        workloads.BY_NAME[arguments.workload].run(bench)  # what happens the first time only is not of interest
        profiler = cProfile.Profile()
        sample = profiler.runcall(workloads.BY_NAME[arguments.workload].run, bench)
        bench.connection.close()
    print(f"{sample.units} units, {sample.wall / sample.units * 1e6:.2f} µs each under the profiler\n")
    print("calls a unit   own µs a call   function")
    functions = [
        (calls, own, f"{Path(file).name}:{line} {name}" if line else name)
        for (file, line, name), (_, calls, own, _, _) in pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    ]
    for calls, own, name in sorted(functions, key=lambda entry: -entry[1])[: arguments.lines]:
        print(f"{calls / sample.units:12.3f}   {own / calls * 1e6:13.2f}   {name}")


if __name__ == "__main__":
    main()
