"""Card numbers: what is taken for one, what is not, and that a refused one is in no event, error or file."""

from __future__ import annotations

import decimal
import json
import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosvfs.audit import AccessDeniedError, AuditPolicyError, Policy
from heliosvfs.audited import AuditedConnection
from heliosvfs.compliance import cards

KEY = bytes(range(32))
PAN = "4111111111111111"
NUMBERS = [  # the networks' test numbers, which no account has
    PAN,
    "4012 8888 8888 1881",
    "4000-0000-0000-0000-006",
    "5555555555554444",
    "5105-1051-0510-5100",
    "2223003122003222",
    "2720 9900 0000 0007",
    "378282246310005",
    "3714 496353 98431",
    "6011111111111117",
    "6440000000000005",
    "30569309025904",
    "3852 0000 0232 37",
    "3530111333300000",
    "6200000000000005",
    "6205 5000 0000 0000 004",
    "2200000000000004",
    "6759649826438453",
    "5018000000000009",
]
NO_NUMBERS = [
    "",
    "4111111111111112",  # Luhn
    "1234567812345670",  # nobody's
    "0000000000000000",
    "411111111111116",  # too short
    "41111111111111111111",  # too long
    "1700000000000",  # milliseconds
    "1700000000000000000",  # nanoseconds
    "20260923143059",
    "4006381333931",  # EAN-13
    "4222222222222",  # Visa's of 13 digits
    "356938035643809",  # IMEI
    "978-3-16-148410-0",
    "4111.1111.1111.1111",
    "52.4111111111111111",
    "4111,1111,1111,1111",
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[AuditedConnection]:
    connection = heliosvfs.connect(tmp_path / "shop.db", key=KEY, audit=Policy(log_select=True, capture_rows="values"))
    assert isinstance(connection, AuditedConnection)
    connection.execute("CREATE TABLE sale(id INTEGER PRIMARY KEY, card, note BLOB)")
    connection.execute("INSERT INTO sale VALUES(1, 'none', zeroblob(60))")
    cards.forbid_card_numbers(connection)
    yield connection
    connection.close(True)


def everything(connection: AuditedConnection) -> str:
    log = connection.execute("SELECT * FROM __audit_log").fetchall()
    return repr(log) + repr(connection.execute("SELECT * FROM sale").fetchall())


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_the_big_networks_are_card_numbers(number: str) -> None:
    assert cards.is_card_number(number)
    assert cards.is_card_number(f"  {number}\n")
    assert cards.has_card_number(f"card: {number}, by Ada")
    assert not cards.is_card_number(f"card: {number}")


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_other_numbers_are_none(text: str) -> None:
    assert not cards.is_card_number(text)
    assert not cards.has_card_number(text)


def test_any_wrong_digit_makes_it_no_card_number() -> None:
    for place in range(16):
        for digit in "0123456789":
            changed = PAN[:place] + digit + PAN[place + 1 :]
            assert cards.is_card_number(changed) == (changed == PAN)


@pytest.mark.parametrize(
    "value",
    [
        PAN,
        int(PAN),
        float(PAN),
        PAN.encode(),
        bytearray(PAN.encode()),
        PAN.encode("utf-16-le"),
        PAN.encode("utf-32-be"),
        decimal.Decimal(PAN),
        f"paid with {PAN}.",
        f"VISA{PAN}EXP0730",
        "4111-1111-1111-1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "order 12, card 4111 1111 1111 1111, cvv none",
        "on 2026-09-23 by 4111 1111 1111 1111",
        json.dumps({"payment": {"methods": [{"pan": PAN}]}}),
        json.dumps([1, int(PAN)]).encode(),
        "٤١١١١١١١١١١١١١١١",
    ],
)
def test_values_with_a_number_are_seen(value: Any) -> None:
    assert cards.has_card_number(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -int(PAN),
        1_700_000_000_000,
        4_006_381_333_931,
        float("nan"),
        float("inf"),
        4.1e15 + 0.5,
        b"",
        b"\x41\x11" * 20,
        "de305d54-75b4-431b-adb2-eb6b9e546014",
        f"{PAN}abcdefabcdefabcdef",  # a digest in hexadecimal
        "[0.4111111111111111, 52.4111111111111111]",
        "4111 1111 1111 1112",
        "41 11 11 11 11 11 11 11 times",
    ],
)
def test_other_values_are_not(value: Any) -> None:
    assert not cards.has_card_number(value)


STATEMENTS: list[tuple[str, Any]] = [
    ("INSERT INTO sale(card) VALUES(?)", (PAN,)),
    ("INSERT INTO sale(card) VALUES(:card)", {"card": int(PAN)}),
    ("INSERT INTO sale(card) VALUES(?)", (float(PAN),)),
    ("INSERT INTO sale(note) VALUES(?)", (PAN.encode(),)),
    ("INSERT INTO sale(note) VALUES(?)", (PAN.encode("utf-16"),)),
    ("INSERT INTO sale(note) VALUES(jsonb(?))", (json.dumps({"a": [PAN]}),)),
    (f"INSERT INTO sale(card) VALUES('{PAN}')", None),
    (f"INSERT INTO sale(card) VALUES({PAN})", None),
    ("INSERT INTO sale(card) VALUES(4111_1111_1111_1111)", None),
    (f"INSERT INTO sale(card) VALUES({int(PAN):#x})", None),
    (f"INSERT INTO sale(card) VALUES({PAN}.0)", None),
    (f"INSERT INTO sale(note) VALUES(x'{PAN.encode().hex()}')", None),
    (f"INSERT INTO sale(note) VALUES(X'{PAN.encode('utf-16-be').hex().upper()}')", None),
    (f"UPDATE sale SET card = '{PAN}'", None),
    ("UPDATE sale SET card = '4111 1111 1111 1111' RETURNING card", None),
    ("DELETE FROM sale WHERE card = ?", (PAN,)),
    ("SELECT * FROM sale WHERE card = ?", (PAN,)),
    (f"SELECT '{PAN}'", None),
    (f"SELECT 1 -- {PAN}", None),
    ("SELECT /* 4111-1111-1111-1111 */ 1", None),
    (f'SELECT 1 AS "{PAN}"', None),
    (f"CREATE TABLE more(card DEFAULT '{PAN}')", None),
    (f'CREATE TABLE "t{PAN}"(x)', None),
    (f"SAVEPOINT s{PAN}", None),
    (f"PRAGMA user_version = {PAN}", None),
    (f"SELECT 1; INSERT INTO sale(card) VALUES('{PAN}')", None),
    (f"EXPLAIN SELECT '{PAN}'", None),
    # what can't be prepared
    (f"INSERT INTO nowhere(card) VALUES('{PAN}')", None),
    (f"INSERT INTO sale(card) VALUES(1 {PAN})", None),
    (f"SELECT [{PAN}] FROM sale", None),
    (f"'{PAN}'", None),
    (f"SELECT 1; SELECT '{PAN}' FROM nowhere", None),
    (f"SELECT nope; SELECT '{PAN}'", None),
]


@pytest.mark.parametrize(("sql", "bindings"), STATEMENTS)
def test_a_statement_with_a_number_is_refused_and_leaves_none_behind(
    connection: AuditedConnection, sql: str, bindings: Any
) -> None:
    with pytest.raises(AccessDeniedError, match="card number") as caught:
        connection.execute(sql, bindings).fetchall()
    chain: list[Any] = [caught.value]
    while chain[-1] is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for trace in (PAN, "4111 1111", "4111-1111", "4111_1111", f"{int(PAN):x}", PAN.encode().hex()):
        assert trace not in repr(chain)
        assert trace not in everything(connection)
    assert connection.execute("SELECT count(*) FROM __audit_log WHERE operation = 'ACCESS DENIED'").get == 1
    assert connection.execute("SELECT count(*) FROM sale").get == 1


def test_executemany_stops_at_the_number(connection: AuditedConnection) -> None:
    with pytest.raises(AccessDeniedError, match="card number"):
        connection.executemany("INSERT INTO sale(card) VALUES(?)", [("a",), (PAN,), ("b",)])
    assert connection.execute("SELECT card FROM sale").fetchall() == [("none",), ("a",)]
    assert PAN not in everything(connection)


def test_a_blob_handle_writes_no_number_not_even_in_parts(connection: AuditedConnection) -> None:
    with connection.blob_open("main", "sale", "note", 1, True) as blob:
        blob.write(PAN[:10].encode())
        with pytest.raises(AccessDeniedError, match="card number"):
            blob.write(PAN[10:].encode())
        blob.write(b"------")
    assert PAN not in everything(connection)


def test_a_changeset_brings_no_number(connection: AuditedConnection) -> None:
    other = apsw.Connection(":memory:")
    other.execute("CREATE TABLE sale(id INTEGER PRIMARY KEY, card, note BLOB)")
    session = apsw.Session(other, "main")
    session.attach()
    other.execute("INSERT INTO sale(id, card) VALUES(5, ?)", (PAN,))
    with pytest.raises(AccessDeniedError, match="card number"):
        connection.apply_changeset(session.changeset())
    assert connection.execute("SELECT count(*) FROM sale").get == 1


def test_other_values_go_in_as_ever(connection: AuditedConnection) -> None:
    values = [
        1,
        "Ada",
        None,
        2.5,
        b"bytes",
        "4111 1111 1111 1112",
        1_700_000_000_000,
        "2026-09-23T14:30:59.123456Z",
        str(uuid.uuid4()),
    ]
    connection.executemany("INSERT INTO sale(card) VALUES(?)", [(value,) for value in values])
    assert [row[0] for row in connection.execute("SELECT card FROM sale WHERE id > 1 ORDER BY id")] == values


def test_a_number_that_sql_puts_together_is_not_seen_and_is_found_later(connection: AuditedConnection) -> None:
    connection.execute("INSERT INTO sale(card) VALUES(? || ?)", (PAN[:6], PAN[6:]))
    assert connection.execute("SELECT length(card) FROM sale WHERE id = 2").get == 16
    found = list(cards.find_card_numbers(connection))
    assert cards.CardsFound("sale", "card", 1) in found
    assert not [one for one in found if one.table not in ("sale", "__audit_log")]


def test_a_connection_that_is_not_audited_takes_no_rule() -> None:
    with pytest.raises(AuditPolicyError):
        cards.forbid_card_numbers(AuditedConnection(":memory:"))


def test_numbers_are_found_whatever_tables_and_columns_are_called(tmp_path: Path) -> None:
    """Names that look like SQLite's own, or are those of its functions; columns that are computed."""
    with closing(heliosvfs.connect(tmp_path / "odd.db", key=KEY)) as connection:
        connection.execute(
            "CREATE TABLE sqlitedata(x); CREATE TABLE pragma_table_list(x); CREATE TABLE pragma_table_info(x)"
        ).fetchall()
        connection.execute("CREATE TABLE computed(a, b AS (a || '') VIRTUAL, c)")
        for table in ("sqlitedata", "pragma_table_list", "pragma_table_info"):
            connection.execute(f"INSERT INTO {table} VALUES(?)", (PAN,))
        connection.execute("INSERT INTO computed(a, c) VALUES('none', ?)", (PAN,))
        found = {(one.table, one.column) for one in cards.find_card_numbers(connection)}
    assert found == {("sqlitedata", "x"), ("pragma_table_list", "x"), ("pragma_table_info", "x"), ("computed", "c")}


# -- how often other numbers are taken for one ------------------------------------------------------------------------------


def test_of_random_numbers_of_16_digits_few_are_taken_for_one() -> None:
    source = random.Random(16)
    count = sum(cards.has_card_number(str(source.randrange(10**15, 10**16))) for _ in range(50_000))
    assert 0.01 < count / 50_000 < 0.04  # a tenth of those whose first digits are an issuer's


def test_identifiers_and_times_are_not_taken_for_one() -> None:
    source = random.Random(4)
    for _ in range(20_000):
        identifier = str(uuid.UUID(int=source.getrandbits(128), version=4))
        assert not cards.has_card_number(identifier)
        assert not cards.has_card_number(identifier.replace("-", ""))
        assert not cards.has_card_number(source.getrandbits(256).to_bytes(32, "big").hex())
    for moment in range(1_600_000_000, 2_000_000_000, 40_009):
        for factor in (1_000, 1_000_000, 1_000_000_000):
            assert not cards.has_card_number(moment * factor + moment % factor)
