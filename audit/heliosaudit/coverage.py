"""What a policy does not see: the honest half of "everything is recorded" (AUDIT.md, "Coverage")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliosaudit.policies import Policy

__all__ = ["GAPS", "Gap", "gaps"]


@dataclass(frozen=True)
class Gap:
    """Something that leaves no event, or less than a reviewer may expect.

    Attributes:
        what: What is not seen.
        clauses: The clauses whose reviewers ask for it.
        applies: Whether a policy has the gap.
        example: SQL that leaves no event under such a policy; "" where the gap is not one of SQL on this connection.
    """

    what: str
    clauses: tuple[str, ...]
    applies: Callable[[Policy], bool]
    example: str = ""


def _always(_: Policy) -> bool:
    return True


GAPS = (
    Gap(
        "reads: who looked at what",
        ("HIPAA 164.312(b)", "PCI DSS 4.0.1 10.2.1.1", "GDPR Art. 30"),
        lambda policy: not policy.log_select,
        "SELECT * FROM t",
    ),
    Gap("changes of data", ("21 CFR 11.10(e)", "SOC 2 CC7.2"), lambda policy: not policy.log_dml, "INSERT INTO t VALUES(1)"),
    Gap("changes of the schema", ("PCI DSS 4.0.1 10.2.1.7",), lambda policy: not policy.log_ddl, "CREATE TABLE made(x)"),
    Gap(
        "administration: PRAGMA, ATTACH, VACUUM",
        ("PCI DSS 4.0.1 10.2.1.2",),
        lambda policy: not policy.log_admin,
        "PRAGMA cache_size = 5",
    ),
    Gap(
        "where transactions begin and end",
        ("IEC 62443 CR 2.8",),
        lambda policy: not policy.log_transactions,
        "SAVEPOINT s; RELEASE s",
    ),
    Gap(
        "tables that are excluded, or not included",
        ("PCI DSS 4.0.1 10.2.1.1",),
        lambda policy: bool(policy.include_tables or policy.exclude_tables),
    ),
    Gap(
        "users that are excluded, or not included",
        ("PCI DSS 4.0.1 10.2.1",),
        lambda policy: bool(policy.include_users or policy.exclude_users),
    ),
    Gap("the values that were bound", ("21 CFR 11.10(e)",), lambda policy: policy.capture_parameters in ("none", "hashed")),
    Gap("values before and after a change", ("21 CFR 11.10(e)",), lambda policy: policy.capture_rows != "values"),
    Gap(
        "after a crash, reads and failures that still waited in memory",
        ("HIPAA 164.312(b)",),
        lambda policy: policy.read_durability == "buffered",
    ),
    Gap(
        "reads in a transaction that has begun to write, or while another connection writes: they are refused",
        (),
        lambda policy: policy.log_select and policy.read_durability == "strict",
    ),
    Gap("rows of tables with VIRTUAL generated columns", ("21 CFR 11.10(e)",), lambda policy: policy.capture_rows == "values"),
    Gap("what the rows of a SELECT held", (), _always),
    Gap("connections that are not audited, and other programs that hold the key", ("SOC 2 CC6.1",), _always),
    Gap("Python code of the same process that takes the hooks away", (), _always),
    Gap("failed attempts to unlock the file: nothing can be written inside it then", ("PCI DSS 4.0.1 10.2.1.4",), _always),
    Gap(
        "whoever holds the key and rewrites the whole log, unless checkpoints are kept elsewhere",
        ("PCI DSS 4.0.1 10.3.4",),
        _always,
    ),
)


def gaps(policy: Policy) -> list[Gap]:
    """Return what a policy does not see."""
    return [gap for gap in GAPS if gap.applies(policy)]
