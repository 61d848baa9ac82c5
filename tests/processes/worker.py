"""A process that works on a database as the lines on its standard input say, and answers each with a line."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import apsw

import heliosvfs


def main() -> None:
    """Answer each line, a JSON list of a command and its arguments, with a JSON value."""
    connection: heliosvfs.Connection | None = None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer: Any
        try:
            if command == "open":
                path, key, mode = arguments
                connection = heliosvfs.connect(path, key=bytes.fromhex(key), journal_mode=mode, busy_timeout=60)
                answer = "open"
            elif command == "sql":
                assert connection is not None
                answer = connection.execute(arguments[0]).fetchall()
            elif command == "transfer":
                assert connection is not None
                answer = transfer(connection, *arguments)
            else:
                os._exit(3)
        except (heliosvfs.HeliosError, apsw.Error) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def transfer(connection: heliosvfs.Connection, who: int, times: int) -> int:
    """Move money around and note each move; the sum never changes. Returns the moves that were committed."""
    for n in range(times):
        connection.execute("BEGIN IMMEDIATE")
        one, other = (who * 7 + n) % 10, (who * 3 + n * 5 + 1) % 10
        connection.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (one,))
        connection.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (other,))
        connection.execute("INSERT INTO move VALUES(?, ?, randomblob(500))", (who, n))
        assert connection.execute("SELECT sum(amount) FROM account").get == 1000
        connection.execute("COMMIT")
        assert connection.execute("SELECT sum(amount) FROM account").get == 1000
    return times


if __name__ == "__main__":
    main()
