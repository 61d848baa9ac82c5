"""`heliosvfs audit coverage` is true: what it names leaves no event, and what it does not name leaves one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

import heliosaudit
from heliosaudit import Policy
from heliosaudit.coverage import GAPS, gaps

NOTHING = {f"log_{name}": False for name in ("ddl", "dml", "select", "transactions", "admin", "auth")}
EXAMPLES = [gap for gap in GAPS if gap.example]
PRESETS = ["soc2", "hipaa", "gdpr", "pci_dss", "fda_21_cfr_part_11", "iec_62443"]


def leaves_an_event(path: Path, policy: Policy, sql: str) -> bool:
    with closing(apsw.Connection(str(path))) as plain:
        plain.execute("CREATE TABLE IF NOT EXISTS t(x)")
    with closing(heliosaudit.connect(path, policy)) as connection:
        connection.execute(sql).fetchall()
    with closing(apsw.Connection(str(path))) as plain:
        return bool(plain.execute("SELECT count(*) FROM __audit_log WHERE operation NOT IN ('GENESIS', 'OPEN', 'CLOSE')").get)


@pytest.mark.parametrize("policy", [Policy(**NOTHING), *map(Policy.preset, PRESETS)], ids=["nothing", *PRESETS])  # type: ignore[arg-type]
@pytest.mark.parametrize("gap", EXAMPLES, ids=lambda gap: gap.what)
def test_what_is_named_leaves_no_event_and_what_is_not_leaves_one(tmp_path: Path, policy: Policy, gap: object) -> None:
    assert gap in GAPS
    sql = EXAMPLES[EXAMPLES.index(gap)].example  # type: ignore[arg-type]
    assert leaves_an_event(tmp_path / "db", policy, sql) == (gap not in gaps(policy))


def test_whatever_the_policy_something_is_not_seen() -> None:
    everything = Policy(log_select=True, log_transactions=True, capture_rows="values", read_durability="strict")
    assert len(gaps(everything)) == 7


def test_strict_reads_that_are_refused_are_named_and_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    strict = Policy(log_select=True, read_durability="strict")
    named = set(gaps(strict)) - set(gaps(Policy(log_select=True)))
    assert [gap.what for gap in named] == [
        "reads in a transaction that has begun to write, or while another connection writes: they are refused"
    ]
    with closing(heliosaudit.connect(tmp_path / "db", strict)) as connection:
        connection.execute("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1)").fetchall()
        with pytest.raises(
            heliosaudit.AuditWriteError, match=r"before the transaction writes, or after it has ended, or use .*buffered"
        ):
            connection.execute("SELECT * FROM t")
        connection.execute("COMMIT")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]
