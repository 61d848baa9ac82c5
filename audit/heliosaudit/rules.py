"""Rules of the layer above: who may read or write what, and which values (AUDIT.md, "Rules").

A rule is asked beside the log's own guard. What it refuses is recorded as ACCESS DENIED, like an attempt on the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliosaudit.errors import AccessDeniedError

if TYPE_CHECKING:
    from heliosaudit.statements import Action, Verdict

__all__ = ["Refusal", "Rule"]


@dataclass(frozen=True)
class Refusal:
    """Why something is refused, and what the application is told.

    Attributes:
        reason: What the event says; no value of the application's may be in it.
        error: What is raised, or a function of the SQL that makes it; None: `heliosaudit.AccessDeniedError` with the reason.
        hides_values: Whether the event shows the SQL without bound values and literals.
    """

    reason: str
    error: Exception | Callable[[str], Exception] | None = None
    hides_values: bool = False

    def raised(self, sql: str) -> Exception:
        """Return what is raised for a statement."""
        if self.error is None:
            return AccessDeniedError(self.reason)
        return self.error if isinstance(self.error, Exception) else self.error(sql)


class Rule:
    """Base of rules: it allows everything. `Audited.add_rule` puts one in force.

    Attributes:
        depends_on_session: Whether `authorize` looks at the acting session: statements are then prepared anew each time, so that
            none is run under the permission of whoever ran the same SQL before.
    """

    depends_on_session = False

    def authorize(self, action: Action) -> Refusal | None:
        """Say whether a statement may do something; asked while it is prepared, and of blob handles.

        Args:
            action: What SQLite asks its authorizer: code, two arguments, schema, and the trigger or view that it comes from
                (https://sqlite.org/c3ref/c_alter_table.html).
        """

    def inspect(self, sql: str, bindings: Any, verdict: Verdict) -> Refusal | None:
        """Say whether a statement may run with these values; asked before each run, so for each row of executemany.

        Args:
            sql: Text of the statement.
            bindings: A sequence, a mapping, or None.
            verdict: What kind of statement it is, and which tables it reads and writes.
        """

    def inspect_unprepared(self, sql: str) -> Refusal | None:
        """Say whether SQL that SQLite could not prepare has to be refused, too, for it and the error would be recorded.

        Args:
            sql: Text that was executed, all statements of it.
        """

    def inspect_blob(self, schema: str, table: str, column: str, data: Any) -> Refusal | None:
        """Say whether bytes may be written through a blob handle.

        Args:
            schema: Schema name.
            table: Table.
            column: Column.
            data: The bytes, at least 64 of what is before and after them in the value.
        """

    def told(self, error: BaseException, sql: str, refusal: Refusal | None, *, ran: bool) -> BaseException | None:
        """Say what the application is told instead of an error; None: the error. The event holds the error itself.

        Args:
            error: What went wrong.
            sql: Text that was executed, all statements of it; "" for a blob handle.
            refusal: Why something was denied; None: nothing was.
            ran: Whether the statement had been prepared.
        """

    def copy(self, schema: str, operation: str) -> Refusal | None:
        """Say whether a whole database may be handed out past SQL.

        Args:
            schema: Schema name.
            operation: "SERIALIZE" or "BACKUP".
        """
