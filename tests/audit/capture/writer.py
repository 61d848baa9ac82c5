"""A process that writes rows through an audited connection, until it is killed or has written enough.

Arguments: database, name of the writer, number of rows, and "encrypted" or "plain".
"""

from __future__ import annotations

import random
import sys

import heliosaudit
import heliosvfs

KEY = bytes(range(32))


def main(path: str, name: str, count: int, kind: str) -> None:
    policy = heliosaudit.Policy(log_select=True, async_buffer_size=50)
    if kind == "encrypted":
        connection = heliosvfs.connect(path, key=KEY, audit=policy, busy_timeout=30)
    else:
        connection = heliosaudit.connect(path, policy, busy_timeout=30)
    rnd = random.Random(name)
    connection.execute("PRAGMA synchronous = NORMAL").fetchall()
    with heliosaudit.session(user=name):
        number = 0
        while number < count:
            if rnd.random() < 0.6:
                connection.execute("INSERT INTO t VALUES(?, ?)", (name, number))
                number += 1
            else:
                connection.execute("BEGIN IMMEDIATE")
                for _ in range(rnd.randrange(1, 4)):
                    connection.execute("INSERT INTO t VALUES(?, ?)", (name, number))
                    number += 1
                if rnd.random() < 0.2:
                    connection.execute("SAVEPOINT s; INSERT INTO t VALUES('undone', 1); ROLLBACK TO s; RELEASE s").fetchall()
                connection.execute("COMMIT")
            if rnd.random() < 0.1:
                connection.execute("SELECT count(*) FROM t").fetchall()
            print(number, flush=True)
    connection.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
