"""Turns timings into the table, the targets' verdicts and the JSON document.

A process's figure is the best of its passes: noise only ever adds time. The figure shown is the median over processes,
and a ratio the median of the ratios between processes that ran next to each other.
"""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from pagebench.rounds import OPENS
from pagebench.subjects import BY_NAME
from pagebench.workloads import BY_NAME as WORKLOADS

if TYPE_CHECKING:
    from pagebench.rounds import Measurement

YARDSTICK = "plain"
OURS = "heliosvfs"
CONTROL = "plain-again"
LABELS = {workload.name: (workload.label, workload.unit) for workload in WORKLOADS.values() if workload.unit}
LABELS |= {name: (label, "open") for name, _, _, label in OPENS}
COLUMN = 17
FIRST_COLUMN = 42
NOISE = 0.03


def summarise(measurement: Measurement) -> list[dict[str, Any]]:
    """Return one record for each page size, workload and subject: medians, minima and ratios to plain."""
    records = []
    for (page_size, workload, subject), series in measurement.series.items():
        wall, cpu = [min(passes) for passes in series.wall], [min(passes) for passes in series.cpu]
        record: dict[str, Any] = {
            "page_size": page_size,
            "workload": workload,
            "unit": LABELS[workload][1],
            "subject": subject,
            "median_us": median(wall),
            "min_us": min(wall),
            "cpu_median_us": median(cpu),
        }
        plain = measurement.series.get((page_size, workload, YARDSTICK))
        if plain:
            plain_wall, plain_cpu = [min(passes) for passes in plain.wall], [min(passes) for passes in plain.cpu]
            pairs = list(zip(wall, plain_wall, strict=True))
            ratios = [ours / theirs for ours, theirs in pairs]
            record["ratio"] = median(ratios)
            record["ratio_quartiles"] = quantiles(ratios, n=4, method="inclusive")[::2] if len(ratios) > 1 else None
            record["min_ratio"] = min(wall) / min(plain_wall)
            record["cpu_ratio"] = median(a / b for a, b in zip(cpu, plain_cpu, strict=True) if b)
            record["over_plain_us"] = median(ours - theirs for ours, theirs in pairs)
        records.append(record | {"passes_wall_us": series.wall, "passes_cpu_us": series.cpu})
    return records


def table(records: list[dict[str, Any]], subjects: list[str]) -> str:
    """Lay the records out, one table for each page size, two lines for each workload: median and minimum."""
    found = {(record["page_size"], record["workload"], record["subject"]): record for record in records}
    lines = []
    for page_size in sorted({record["page_size"] for record in records}):
        lines += ["", f"page size {page_size}".ljust(FIRST_COLUMN) + "".join(name.rjust(COLUMN) for name in subjects)]
        for workload, (label, unit) in LABELS.items():
            row = [found.get((page_size, workload, subject)) for subject in subjects]
            if not any(row):
                continue
            lines.append(_line(f"{label}, µs/{unit}", row, "median_us", "ratio"))
            if any(record and len(record["passes_wall_us"]) > 1 for record in row):
                lines.append(_line("    minimum", row, "min_us", "min_ratio"))
            if unit == "page":
                lines.append(_line("    over plain", row, "over_plain_us", ""))
    return "\n".join(lines)


def _line(title: str, row: list[dict[str, Any] | None], value: str, ratio: str) -> str:
    cells = []
    for record in row:
        if record is None:
            cells.append("")
            continue
        number = record.get(value)
        cell = "" if number is None else f"{number:+.2f}" if value.startswith("over") else _significant(number)
        if ratio:
            factor = record.get(ratio)
            cell += "".rjust(8) if factor is None else f" x{factor:.3f}".rjust(8)
        else:
            cell += " " * 8
        cells.append(cell)
    return title.ljust(FIRST_COLUMN) + "".join(cell.rjust(COLUMN) for cell in cells)


def _significant(number: float) -> str:
    return f"{number:.3f}" if number < 10 else f"{number:.1f}" if number < 1000 else f"{number:.0f}"


def versions(found: dict[str, dict[str, str]]) -> str:
    """List who is measured, and whose SQLite is not plain's."""
    yardstick = found.get(YARDSTICK, {}).get("sqlite", "")
    lines = []
    for subject, about in found.items():
        parts = [f"SQLite {about['sqlite']}", about["binding"], about.get("library", ""), BY_NAME[subject].note]
        if yardstick and about["sqlite"] != yardstick:
            parts.append("NOT PLAIN'S SQLITE")
        lines.append(f"  {subject.ljust(16)} {' · '.join(filter(None, parts))}")
    others = sorted({about["sqlite"] for about in found.values()} - {yardstick})
    if yardstick and others:
        lines.append(
            f"  Plain is SQLite {yardstick}; columns with {' or '.join(others)} also differ by what SQLite changed"
            " between, and by how they were compiled."
        )
    return "\n".join(lines)


def verdicts(records: list[dict[str, Any]], page_size: int = 4096) -> list[tuple[str, bool]]:
    """Hold our column against the targets; peers that were not measured are not mentioned."""
    rows = {(record["workload"], record["subject"]): record for record in records if record["page_size"] == page_size}
    ours = {workload: record for (workload, subject), record in rows.items() if subject == OURS}
    if not ours or "ratio" not in ours["cold_scan"]:
        return []
    over = ours["cold_scan"]["over_plain_us"]
    found = [(f"cold scan {over:+.2f} µs a page over plain (at most +2.5)", over <= 2.5)]
    for workload in ("hot_points", "hot_calls"):
        ratio, noise = ours[workload]["ratio"], rows.get((workload, CONTROL), {}).get("ratio")
        beside = "" if noise is None else f"; plain against itself x{noise:.3f}"
        if ours[workload]["ratio_quartiles"]:
            beside = "; quartiles {:.3f} to {:.3f}".format(*ours[workload]["ratio_quartiles"]) + beside
        found.append((f"{LABELS[workload][0]} x{ratio:.3f} (at most x1.030{beside})", ratio <= 1.03))
    ratio = ours["bulk_insert"]["ratio"]
    found.append((f"bulk insert x{ratio:.3f} (at most x1.250)", ratio <= 1.25))
    for peer in ("mc-chacha20", "sqlcipher"):
        theirs = {workload: record for (workload, subject), record in rows.items() if subject == peer}
        # Opening is left out: its time is the strength of the key derivation, which each may choose.
        # So are rows where ours is as fast as plain: hot reads, where all are alike.
        slower = [w for w in theirs if not w.startswith("open") and ours[w]["ratio"] > max(1, theirs[w]["ratio"]) * (1 + NOISE)]
        if theirs:
            names = ", ".join(f"{LABELS[w][0]} (x{ours[w]['ratio']:.2f} to x{theirs[w]['ratio']:.2f})" for w in slower)
            found.append(
                (
                    f"not slower than {peer} on any row ({NOISE:.0%} left to noise){f', except: {names}' if slower else ''}",
                    not slower,
                )
            )
    return found
