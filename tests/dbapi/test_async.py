"""APSW's own async support works on encrypted databases (docs/DBAPI.md, "Asynchronous programs")."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

import heliosvfs
import heliosvfs.dbapi2 as sqlite3


@pytest.mark.parametrize("kind", [apsw.Connection, heliosvfs.Connection])
def test_an_async_connection_reads_and_writes_an_encrypted_database(kind: type[apsw.Connection], path: Path, key: bytes) -> None:
    sqlite3.connect(path, key=key).execute("CREATE TABLE t(x)").connection.close()
    heliosvfs.default_keyring.add("clinic", key)

    async def program() -> list[tuple[int]]:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        connection = await kind.as_async(f"file:{path}?heliosvfs_key=clinic", flags=flags, vfs="heliosvfs")
        await connection.executemany("INSERT INTO t VALUES(?)", [(1,), (2,)])
        rows = [row async for row in await connection.execute("SELECT x FROM t")]
        await connection.aclose()
        return rows

    try:
        assert asyncio.run(program()) == [(1,), (2,)]
    finally:
        heliosvfs.default_keyring.discard("clinic")
