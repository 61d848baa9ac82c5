"""The parts of ``bench/pages.py``: subjects, their environments, the worker process, workloads and the report."""
