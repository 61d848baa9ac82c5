"""docs/MONITORING.md names what there is."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import heliosvfs
from heliosvfs import activity, metrics

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "MONITORING.md").read_text()


def test_each_metric_is_in_the_table_in_its_kind_and_order(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=bytes(32), audit="soc2", rotation_interval_days=30)) as connection:
        assert isinstance(connection, heliosvfs.AuditedConnection)
        assert connection.auditor is not None
        metrics.watch(connection)
        connection.execute("CREATE TABLE t(x)")
        connection.auditor.flush()
        rendered = re.findall(r"^# TYPE (\w+) (\w+)$", metrics.render(), re.MULTILINE)
    assert re.findall(r"^\| `(heliosvfs_\w+)` \| (\w+) \|", TEXT, re.MULTILINE) == rendered


def test_labels_are_those_of_the_table(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "db", key=bytes(32), audit="soc2", rotation_interval_days=30)) as connection:
        assert isinstance(connection, heliosvfs.AuditedConnection)
        assert connection.auditor is not None
        metrics.watch(connection)
        connection.auditor.flush()
        samples = re.findall(r"^(\w+)(?:\{(\w+)=\"([^\"]*)\"\})? ", metrics.render(), re.MULTILINE)
    table = dict(re.findall(r"^\| `(heliosvfs_\w+)` \| \w+ \| ([^|]*?) ?\|", TEXT, re.MULTILINE))
    for name, label, value in samples:
        documented, _, known = table[name].partition(":")
        assert documented == label, name
        assert not known or value in known.strip().split(", "), name


def test_alerts_ask_for_metrics_and_labels_that_there_are() -> None:
    yaml = TEXT.partition("```yaml")[2].partition("```")[0]
    asked = re.findall(r"(heliosvfs_\w+)(?:\{(.*?)\})?", yaml)
    assert len(asked) == yaml.count("expr:") >= 10
    rendered = metrics.render()
    for name, label in asked:
        assert f"`{name}`" in TEXT
        assert not label or f"{name}{{{label}}}" in rendered


def test_each_operation_that_is_told_is_in_the_table() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "heliosvfs").rglob("*.py"))
    told = set(re.findall(r"\btell(?:ing)?\(\"([A-Z ]+)\"", sources))
    rows = re.findall(r"^\| (`[A-Z ]+`(?:, `[A-Z ]+`)*) \|", TEXT, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([A-Z ]+)`", row)}
    assert documented == told
    assert told > activity._ENCRYPTION
