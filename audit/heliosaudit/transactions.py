"""What becomes of events while transactions and savepoints come and go (AUDIT.md, "States of a transaction").

Pure bookkeeping: it runs no SQL. Each savepoint has a frame; a frame holds the events of its work that are still to be written,
and those that were written into the log within it but whose transaction is not decided yet. A rollback turns both into facts.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable

from heliosaudit.events import Event
from heliosaudit.records import encode

__all__ = ["SUMMARY", "Frame", "Summary", "Transactions"]

SUMMARY = "ROLLED BACK EVENTS"  # the operation of the event that a summary becomes


class Summary:
    """Counts and a digest of undecided events that are too many to be kept.

    Attributes:
        counts: Events by class, operation and target.
        digest: Running SHA-256 over their encoded records, in order.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.digest = hashlib.sha256()

    def add(self, event: Event) -> None:
        """Count an event that was written."""
        fields = event.fields
        if fields[4] == SUMMARY:  # itself written in a transaction that then was rolled back further
            self.counts.update({(kind, operation, target): count for kind, operation, target, count in fields[21]["counts"]})
        else:
            self.counts[fields[14], fields[4], fields[5]] += 1
        self.digest.update(encode(fields))

    def merge(self, other: Summary) -> None:
        """Take in the summary of a savepoint that was released."""
        self.counts.update(other.counts)
        self.digest.update(other.digest.digest())

    def __bool__(self) -> bool:
        """Tell whether it stands for any event."""
        return bool(self.counts)


class Frame:
    """A transaction, or a savepoint in it.

    Attributes:
        name: The savepoint's name in lower case; "" for BEGIN.
        pending: Events of work that are to be written.
        undecided: Events written within this frame, in a transaction that is not decided.
        summary: What stands for those that are too many.
    """

    __slots__ = ("name", "pending", "summary", "undecided")

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: list[Event] = []
        self.undecided: list[Event] = []
        self.summary = Summary()


class Transactions:
    """The frames of a connection, and its facts that wait to be written.

    Attributes:
        facts: Events that stand whatever becomes of a transaction.
        frames: The open transaction and its savepoints, outermost first; none in autocommit.
    """

    def __init__(self, limit: int) -> None:
        """Keep up to ``limit`` undecided events one by one."""
        self.facts: deque[Event] = deque()
        self.frames: list[Frame] = []
        self._limit = limit
        self._kept = 0

    @property
    def has_unwritten_work(self) -> bool:
        """Whether an event of work is not in the log yet."""
        return any(frame.pending for frame in self.frames)

    def begin(self, name: str = "") -> None:
        """Note a BEGIN or SAVEPOINT that was executed."""
        self.frames.append(Frame(name))

    def add_work(self, event: Event) -> int:
        """Note an event of work; returns how many wait in its frame."""
        event.origin = len(self.frames) - 1
        pending = self.frames[-1].pending
        pending.append(event)
        return len(pending)

    def take(self) -> list[Event]:
        """Return all events that can be written now, facts first; `written` or `returned` must follow."""
        events = list(self.facts)
        self.facts.clear()
        for frame in self.frames:
            events += frame.pending
        return events

    def returned(self, events: Iterable[Event]) -> None:
        """Put facts back that could not be written; work never left its frame."""
        self.facts.extendleft(reversed([event for event in events if not event.is_work]))

    def written(self, events: list[Event]) -> None:
        """Note that what `take` returned is in the log, within the innermost frame."""
        top, index = self.frames[-1], len(self.frames) - 1
        for frame in self.frames:
            frame.pending.clear()
        for event in events:
            if self._kept < self._limit or (event.is_work and event.origin < index):  # work around the frame may outlive its row
                top.undecided.append(event)
                self._kept += 1
            else:
                top.summary.add(event)

    def index_of(self, name: str) -> int | None:
        """Return the index of the innermost savepoint of a name, in lower case."""
        for index in range(len(self.frames) - 1, -1, -1):
            if self.frames[index].name == name and name:
                return index
        return None

    def release(self, index: int) -> None:
        """Merge a savepoint and those within it into the frame around it."""
        outer = self.frames[index - 1]
        for frame in self.frames[index:]:
            for event in (*frame.pending, *frame.undecided):
                event.origin = min(event.origin, index - 1)
            outer.pending += frame.pending
            outer.undecided += frame.undecided
            if frame.summary:
                outer.summary.merge(frame.summary)
        del self.frames[index:]

    def committed(self) -> None:
        """Forget a transaction that was committed."""
        self.frames.clear()
        self._kept = 0

    def rolled_back(self, index: int = 0) -> list[Summary]:
        """Turn the events of a frame, and of those within it, into facts, and drop these frames.

        Returns:
            The summaries of what was not kept: the caller writes an event for each.
        """
        facts: list[Event] = []
        summaries = []
        for frame in self.frames[index:]:
            for event in frame.undecided:
                if event.is_work and event.origin < index:
                    self.frames[event.origin].pending.append(event)  # of work around it, which stands: only its row is gone
                else:
                    facts.append(event)
            facts += frame.pending
            self._kept -= len(frame.undecided)
            if frame.summary:
                summaries.append(frame.summary)
        for event in facts:
            event.mark_rolled_back()
        self.facts += facts
        del self.frames[index:]
        return summaries

    def rolled_back_to(self, index: int) -> list[Summary]:
        """Note a ROLLBACK TO: the savepoint itself stays."""
        name = self.frames[index].name
        summaries = self.rolled_back(index)
        self.begin(name)
        return summaries
