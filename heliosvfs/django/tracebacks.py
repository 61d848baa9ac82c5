"""Tracebacks end where the database begins.

Django's pages of errors show the local variables of each frame. sqlite3 is C and has none; ours hold pages and, while a database
is being unlocked, keys. So what an error's traceback shows of heliosvfs is cut off before Django gets it.
"""

from __future__ import annotations

from types import TracebackType

from django.db.utils import DatabaseErrorWrapper

__all__ = ["ErrorWrapper", "without_our_frames"]

_OURS = "heliosvfs."
_DJANGOS = "heliosvfs.django"  # frames of the backend itself hold what Django shows anyway


def _is_ours(traceback: TracebackType) -> bool:
    name = str(traceback.tb_frame.f_globals.get("__name__", ""))
    return name.startswith((_OURS, "heliosaudit.")) and not name.startswith(_DJANGOS)


def _cut(traceback: TracebackType | None) -> TracebackType | None:
    frames = []
    while traceback is not None and not _is_ours(traceback):
        frames.append(traceback)
        traceback = traceback.tb_next
    kept = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept


def without_our_frames(error: BaseException) -> BaseException:
    """Cut the traceback of an error, and of what caused it, where heliosvfs begins; return the error."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        found.__traceback__ = _cut(found.__traceback__)
        pending += [found.__cause__, found.__context__]
    return error


class ErrorWrapper(DatabaseErrorWrapper):  # type: ignore[misc] # Django has no annotations
    """Django's translation of errors into its own, without the frames of heliosvfs."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Raise Django's error in the place of ours."""
        if error is not None:
            without_our_frames(error)
        super().__exit__(kind, error, None if error is None else error.__traceback__)
