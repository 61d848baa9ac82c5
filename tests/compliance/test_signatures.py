"""Electronic signatures: what they bind, who may make them, and what every way to forge one comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosaudit import AccessDeniedError, chains
from heliosvfs import KdfSettings, UsageError, WrongKeyError
from heliosvfs.compliance import signatures, signers
from heliosvfs.compliance.signatures import require_signatures, signing, verify_signatures

KEY = bytes(range(32))
CHEAP = KdfSettings(memory_kib=19 * 1024, passes=2, lanes=1)
PASSPHRASE = "a good passphrase"


def connect(path: Path) -> Any:
    connection = heliosvfs.connect(path, key=KEY, audit="fda_21_cfr_part_11")
    require_signatures(connection, ["batch"])
    return connection


def make(path: Path) -> Any:
    with closing(heliosvfs.connect(path, key=KEY, audit="fda_21_cfr_part_11")) as connection:
        connection.execute("CREATE TABLE batch(id INTEGER PRIMARY KEY, state, data BLOB); CREATE TABLE free(x)").fetchall()
        signers.enrol(connection, "ada", name="Ada Lovelace", passphrase=PASSPHRASE, settings=CHEAP)
        signers.enrol(connection, "bob", name="Robert Noyce", passphrase=PASSPHRASE, settings=CHEAP)
    return connect(path)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    made = make(tmp_path / "app.db")
    yield made
    made.close(True)


def sign(
    connection: Any, sql: str = "INSERT INTO batch(state) VALUES('new')", signer: str = "ada", meaning: str = "approved"
) -> None:
    with signing(connection, signer=signer, passphrase=PASSPHRASE, meaning=meaning):
        connection.execute(sql)


def test_a_signature_shows_name_time_and_meaning_and_names_what_it_signs(connection: Any) -> None:
    sign(connection)
    report = verify_signatures(connection)
    assert report.ok
    [made] = report.signatures
    assert (made.signer, made.name, made.meaning, made.flaw) == ("ada", "Ada Lovelace", "approved", "")
    assert str(made) == f"Signed by Ada Lovelace (ada) on {made.time}: approved"
    [(number, checksum)] = made.signed
    found = connection.execute("SELECT operation, hex(checksum) FROM __audit_log WHERE id = ?", (number,)).fetchall()
    assert found == [("INSERT", checksum.upper())]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO batch(state) VALUES('x')",
        "UPDATE batch SET state = 'x'",
        "DELETE FROM BATCH",
        "WITH x AS (SELECT 1) INSERT INTO main.batch(state) SELECT * FROM x",
        "DROP TABLE batch",
        "ALTER TABLE batch RENAME TO other",
        "CREATE TRIGGER t AFTER INSERT ON batch BEGIN SELECT 1; END",
        "BEGIN; UPDATE batch SET state = 'x'; COMMIT",
        "REPLACE INTO batch VALUES(1, 'x', NULL)",
    ],
)
def test_what_is_not_signed_is_refused_and_recorded(connection: Any, sql: str) -> None:
    sign(connection)
    with pytest.raises(AccessDeniedError, match="have to be signed"):
        connection.execute(sql).fetchall()
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT state FROM batch").fetchall() == [("new",)]
    assert connection.execute("SELECT count(*) FROM __audit_log WHERE operation = 'ACCESS DENIED'").get == 1
    assert verify_signatures(connection).ok


def test_a_change_through_a_trigger_or_a_blob_is_refused_too(connection: Any) -> None:
    sign(connection, "INSERT INTO batch(id, data) VALUES(1, x'00')")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON free BEGIN UPDATE batch SET state = new.x; END")
    with pytest.raises(AccessDeniedError):
        connection.execute("INSERT INTO free VALUES('x')")
    with pytest.raises(AccessDeniedError):
        connection.blob_open("main", "batch", "data", 1, True)
    assert connection.execute("SELECT state FROM batch").get is None


def test_a_statement_prepared_within_a_signing_is_refused_after_it(connection: Any) -> None:
    sql = "INSERT INTO batch(state) VALUES('again')"
    sign(connection, sql)
    with pytest.raises(AccessDeniedError):
        connection.execute(sql)
    sign(connection, sql)
    assert connection.execute("SELECT count(*) FROM batch").get == 2


def test_a_wrong_passphrase_an_unknown_signer_and_a_revoked_one_are_refused_alike_and_recorded(connection: Any) -> None:
    signers.revoke(connection, "bob", reason="left")
    messages = set()
    for signer, passphrase in (("ada", "another passphrase"), ("eve", PASSPHRASE), ("bob", PASSPHRASE), ("ada", "")):
        with (
            pytest.raises(WrongKeyError) as caught,
            signing(connection, signer=signer, passphrase=passphrase, meaning="approved"),
        ):
            pytest.fail("it was let in")
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert not connection.in_transaction
    refused = connection.execute(
        "SELECT target, success, class FROM __audit_log WHERE operation = 'SIGNATURE REFUSED' ORDER BY id"
    ).fetchall()
    assert {row[0] for row in refused} == {"ada", "eve", "bob"}
    assert {row[1:] for row in refused} == {(0, "AUTH")}
    assert "passphrase" not in str(
        connection.execute("SELECT record FROM __audit_log WHERE operation = 'SIGNATURE REFUSED'").fetchall()
    )


def test_a_signing_that_fails_leaves_neither_change_nor_signature(connection: Any) -> None:
    with (  # noqa: PT012 - the block is what is tested
        pytest.raises(ZeroDivisionError),
        signing(connection, signer="ada", passphrase=PASSPHRASE, meaning="approved"),
    ):
        connection.execute("INSERT INTO batch(state) VALUES('x')")
        raise ZeroDivisionError
    assert connection.execute("SELECT count(*) FROM batch").get == 0
    assert verify_signatures(connection).signatures == ()
    with pytest.raises(AccessDeniedError):
        connection.execute("INSERT INTO batch(state) VALUES('x')")


def test_work_that_was_rolled_back_within_a_signing_is_not_signed(connection: Any) -> None:
    with signing(connection, signer="ada", passphrase=PASSPHRASE, meaning="approved"):
        connection.execute("INSERT INTO batch(state) VALUES('kept')")
        connection.execute("SAVEPOINT s; INSERT INTO batch(state) VALUES('gone'); ROLLBACK TO s; RELEASE s").fetchall()
    report = verify_signatures(connection)
    assert report.ok
    assert len(report.signatures[0].signed) == 1
    assert connection.execute("SELECT state FROM batch").get == "kept"


@pytest.mark.parametrize(
    ("sql", "meaning", "said"),
    [("SELECT 1", "approved", "nothing to sign"), ("INSERT INTO batch(id) VALUES(9)", "  ", "meaning")],
)
def test_nothing_and_no_meaning_are_not_signed(connection: Any, sql: str, meaning: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sign(connection, sql, meaning=meaning)
    assert not connection.in_transaction


def test_a_signing_within_a_transaction_is_refused(connection: Any) -> None:
    connection.execute("BEGIN")
    with pytest.raises(UsageError, match="transaction"):
        sign(connection)


def test_a_new_passphrase_opens_the_same_key_and_the_old_one_no_more(connection: Any) -> None:
    sign(connection)
    signers.change_passphrase(connection, "ada", old=PASSPHRASE, new="quite another one", settings=CHEAP)
    with pytest.raises(WrongKeyError):
        sign(connection)
    with signing(connection, signer="ada", passphrase="quite another one", meaning="reviewed"):
        connection.execute("INSERT INTO batch(state) VALUES('x')")
    assert verify_signatures(connection).ok


def test_what_a_signer_signed_before_being_revoked_stays_signed(connection: Any) -> None:
    sign(connection, signer="bob")
    signers.revoke(connection, "bob", reason="left")
    assert verify_signatures(connection).ok
    assert [one.revoked != "" for one in signers.signers(connection)] == [False, True]
    with pytest.raises(UsageError, match="never given to anybody else"):
        signers.enrol(connection, "bob", name="Another", passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE __audit_signers SET name = 'x'",
        "DELETE FROM __audit_signers",
        "INSERT INTO __audit_signers(id) VALUES('x')",
        "DROP TABLE __audit_signers",
    ],
)
def test_nobody_changes_signers_by_sql(connection: Any, sql: str) -> None:
    with pytest.raises(AccessDeniedError):
        connection.execute(sql)


def test_neither_key_nor_passphrase_is_anywhere_in_the_file(tmp_path: Path) -> None:
    connection = make(tmp_path / "app.db")
    sign(connection)
    _, key = signers.unlock(connection, "ada", PASSPHRASE)
    dump = str(connection.execute("SELECT record FROM __audit_log").fetchall()) + str(
        connection.execute("SELECT * FROM __audit_signers").fetchall()
    )
    assert PASSPHRASE not in dump
    assert key.private_bytes_raw().hex() not in dump
    connection.close()


def test_a_killed_signing_leaves_neither_change_nor_signature(tmp_path: Path) -> None:
    make(tmp_path / "app.db").close()
    code = f"""
import sys, time
from pathlib import Path
from tests.compliance.test_signatures import PASSPHRASE, connect, signing
c = connect(Path({str(tmp_path / "app.db")!r}))
with signing(c, signer="ada", passphrase=PASSPHRASE, meaning="approved"):
    c.execute("INSERT INTO batch(state) VALUES('x')")
    print("inside", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with closing(connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT count(*) FROM batch").get == 0
        assert verify_signatures(connection).ok
        sign(connection)
        assert len(verify_signatures(connection).signatures) == 1


# -- forgeries by someone who holds the database's key and rebuilds the chain -----------------------------------------------


def rebuild(path: Path, change: Callable[[list[list[Any]]], None]) -> None:
    """Change records as a holder of the key can: past the audit, with a chain that holds afterwards."""
    with closing(heliosvfs.connect(path, key=KEY)) as plain:
        rows = [
            [number, json.loads(record)] for number, record in plain.execute("SELECT id, record FROM __audit_log ORDER BY id")
        ]
        change(rows)
        triggers = plain.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = '__audit_log'").fetchall()
        for (name,) in triggers:
            plain.execute(f'DROP TRIGGER "{name}"')
        plain.execute("DELETE FROM __audit_log")
        previous = chains.ROOT
        for number, (_, fields) in enumerate(rows, 1):
            record = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
            previous = chains.checksum(previous, number, record.encode())
            plain.execute("INSERT INTO __audit_log(id, record, checksum) VALUES(?, ?, ?)", (number, record, previous))


def signature_in(rows: list[list[Any]], which: int = 0) -> dict[str, Any]:
    return [fields[21] for _, fields in rows if fields[4] == "SIGNATURE"][which]  # type: ignore[no-any-return]


def change_in(rows: list[list[Any]], which: int = 0) -> list[Any]:
    return [fields for _, fields in rows if fields[4] == "INSERT" and fields[5] == "batch"][which]  # type: ignore[no-any-return]


def _set(name: str, value: Any) -> Callable[[list[list[Any]]], None]:
    return lambda rows: signature_in(rows).__setitem__(name, value)


def _swap_signatures(rows: list[list[Any]]) -> None:
    one, two = signature_in(rows, 0), signature_in(rows, 1)
    one["signature"], two["signature"] = two["signature"], one["signature"]


def _point_elsewhere(rows: list[list[Any]]) -> None:
    signature_in(rows, 0)["signed"] = signature_in(rows, 1)["signed"]


def _delete_signature(rows: list[list[Any]]) -> None:
    rows.remove(next(row for row in rows if row[1][4] == "SIGNATURE"))


def _swap_keys(rows: list[list[Any]]) -> None:
    one, two = (fields[21] for _, fields in rows if fields[4] == "ENROL SIGNER")
    one["public_key"], two["public_key"] = two["public_key"], one["public_key"]


def _revoke_before(rows: list[list[Any]]) -> None:
    at = next(number for number, row in enumerate(rows) if row[1][4] == "SIGNATURE")
    fields = list(rows[at][1])
    fields[4], fields[14], fields[21] = "REVOKE SIGNER", "AUTH", {"signer": "ada", "reason": "x"}
    rows.insert(at, [0, fields])


FORGERIES: dict[str, Callable[[list[list[Any]]], None]] = {
    "another name": _set("name", "Eve"),
    "another time": _set("time", "2020-01-01T00:00:00.000000Z"),
    "another meaning": _set("meaning", "rejected"),
    "another signer": _set("signer", "bob"),
    "another signature": _set("signature", "00" * 64),
    "no signature": _set("signature", ""),
    "signatures swapped": _swap_signatures,
    "copied to another record": _point_elsewhere,
    "the signed record edited": lambda rows: change_in(rows).__setitem__(6, "INSERT INTO batch(state) VALUES('other')"),
    "who did it edited": lambda rows: change_in(rows).__setitem__(3, "eve"),
    "the signature deleted": _delete_signature,
    "the signers' keys swapped": _swap_keys,
    "revoked before": _revoke_before,
    "not a signature": _set("signed", "all"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_though_the_chain_was_rebuilt(tmp_path: Path, forgery: str) -> None:
    with closing(make(tmp_path / "app.db")) as connection:
        sign(connection)
        sign(connection, signer="bob", meaning="reviewed")
    rebuild(tmp_path / "app.db", lambda _: None)
    with closing(connect(tmp_path / "app.db")) as connection:
        assert verify_signatures(connection).ok  # rebuilding alone changes nothing
    rebuild(tmp_path / "app.db", FORGERIES[forgery])
    with closing(connect(tmp_path / "app.db")) as connection:
        report = verify_signatures(connection)
        assert report.chain == "consistent, unanchored"
        assert not report.ok
        assert report.unsigned


def test_a_signature_is_of_one_database_only(tmp_path: Path) -> None:
    with closing(make(tmp_path / "app.db")) as connection:
        sign(connection)

    def another_log(rows: list[list[Any]]) -> None:
        rows[0][1][21]["uuid"] = "00000000-0000-0000-0000-000000000000"

    rebuild(tmp_path / "app.db", another_log)
    with closing(connect(tmp_path / "app.db")) as connection:
        assert not verify_signatures(connection).ok


def test_an_edit_without_a_new_chain_is_found_by_the_chain(tmp_path: Path) -> None:
    with closing(make(tmp_path / "app.db")) as connection:
        sign(connection)
    with closing(heliosvfs.connect(tmp_path / "app.db", key=KEY)) as plain:
        plain.execute("DROP TRIGGER __audit_log_no_update")
        plain.execute("UPDATE __audit_log SET record = replace(record, 'approved', 'rejected') WHERE operation = 'SIGNATURE'")
    with closing(connect(tmp_path / "app.db")) as connection:
        assert verify_signatures(connection).chain == "broken"


def test_signatures_need_an_audited_connection(tmp_path: Path) -> None:
    with closing(heliosvfs.connect(tmp_path / "plain.db", key=KEY)) as connection, pytest.raises((UsageError, AttributeError)):
        signers.enrol(connection, "ada", name="Ada", passphrase=PASSPHRASE)  # type: ignore[arg-type]


def test_a_short_passphrase_and_an_empty_name_are_refused(connection: Any) -> None:
    for signer, name, passphrase in (("eve", "Eve", "short"), ("eve", " ", PASSPHRASE), ("", "Eve", PASSPHRASE)):
        with pytest.raises(UsageError):
            signers.enrol(connection, signer, name=name, passphrase=passphrase)
    assert [one.id for one in signers.signers(connection)] == ["ada", "bob"]


def test_a_second_process_sees_signers_and_signatures(tmp_path: Path) -> None:
    with closing(make(tmp_path / "app.db")) as connection:
        sign(connection)
        code = f"""
from pathlib import Path
from tests.compliance.test_signatures import connect, sign, verify_signatures
c = connect(Path({str(tmp_path / "app.db")!r}))
sign(c, signer="bob", meaning="reviewed")
print([str(one.meaning) for one in verify_signatures(c).signatures], verify_signatures(c).ok)
c.close()
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
        )
        assert done.stdout == "['approved', 'reviewed'] True\n", done.stderr
        assert [one.meaning for one in signatures.signatures(connection)] == ["approved", "reviewed"]


def test_a_busy_database_leaves_nothing_half_signed(connection: Any) -> None:
    connection.set_busy_timeout(0)
    with closing(apsw.Connection(connection.filename, vfs="heliosvfs")):
        pass
    with closing(heliosvfs.connect(connection.filename, key=KEY)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(apsw.BusyError):
            sign(connection)
        other.execute("ROLLBACK")
    assert not connection.in_transaction
    sign(connection)
    assert verify_signatures(connection).ok
