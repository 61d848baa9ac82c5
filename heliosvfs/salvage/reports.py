"""What a salvage found and what it could not save."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DamagedPage", "SalvageReport"]


@dataclass(frozen=True)
class DamagedPage:
    """A page that could not be read.

    Attributes:
        page: Its number.
        owner: The table or index that it belongs to, or what else it is.
    """

    page: int
    owner: str


@dataclass(frozen=True)
class SalvageReport:
    """What a salvage found and what it could not save.

    A second table, lost_and_found_entries, gets what is found on pages of an index or of a table WITHOUT ROWID, which can't be
    told apart without their schema; ``problems`` mentions it then.

    Attributes:
        pages: Pages of the damaged database.
        damaged_pages: Those that could not be read.
        tables: Rows that each table of the new database got, by name.
        missing: Tables that lack rows, and how many: None where nothing says how many there were. Rows that went to the
            lost-and-found table count as missing, for they are not where they belong.
        lost_and_found: Rows in the lost-and-found table: their table is unknown, could not be made or did not take them.
        lost_and_found_table: Its name, "" if there is none. Its columns are rootpgno (uppermost page that is left above the
            row), pgno (the row's page), nfield (number of fields), id (rowid, NULL where there is none), c0, c1, ...
        problems: What else was lost, objects of the schema, say; and why it is not certain that all this is of the last commit.
        notes: What was concluded from what, and anything else that is good to know.
    """

    pages: int
    damaged_pages: tuple[DamagedPage, ...]
    tables: dict[str, int]
    missing: dict[str, int | None]
    lost_and_found: int
    lost_and_found_table: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is known or suspected to be lost: damage can lie in free pages, or in an index, which is made anew."""
        return not self.missing and not self.lost_and_found and not self.problems
