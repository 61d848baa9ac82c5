"""The reader of SQLite's file format: records, pages, freelist, pointer map, owners, and trees with pages missing."""

from __future__ import annotations

import struct

import apsw
import pytest

from heliosvfs import btrees
from heliosvfs.btrees.records import field_count, guess_encoding
from tests.damage import PlainFile, dbstat, example


def varint(value: int) -> bytes:
    """Encode as the format's description says, most significant group first."""
    if value >= 1 << 56:
        return b"".join(bytes([value >> shift & 0x7F | 0x80]) for shift in range(57, 7, -7)) + bytes([value & 0xFF])
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def record(*fields: tuple[int, bytes]) -> bytes:
    types = b"".join(varint(kind) for kind, _ in fields)
    return varint(len(types) + 1) + types + b"".join(body for _, body in fields)


def as_file(connection: apsw.Connection) -> PlainFile:
    return PlainFile(connection.serialize("main"))


def database(*statements: str, page_size: int = 512, **pragmas: object) -> apsw.Connection:
    connection = apsw.Connection("")
    for name, value in {"page_size": page_size, **pragmas}.items():
        connection.pragma(name, value)
    for statement in statements:
        connection.execute(statement)
    return connection


def owners(file: PlainFile) -> dict[int, str]:
    found = btrees.owners(file.read, file.page_size, file.usable_size, file.page_count)
    return {page: str(owner) for page, owner in found.items()}


def freelist(file: PlainFile) -> btrees.Freelist:
    return btrees.freelist(file.read, file.page_size, file.usable_size, file.page_count)


# -- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, (1 << 56) - 1, 1 << 56, (1 << 63) + 5, (1 << 64) - 1])
def test_varints_of_every_length_are_read_with_what_follows_them_left_alone(value):
    data = b"\xff" + varint(value) + b"\x81\x82"
    assert btrees.read_varint(data, 1) == (value, len(data) - 2)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 8])
def test_a_varint_that_is_cut_short_is_malformed(data):
    with pytest.raises(btrees.MalformedError, match="cut short"):
        btrees.read_varint(data, 0)


def test_every_serial_type_has_its_value():
    fields = [
        (0, b""),
        (1, b"\xff"),
        (2, b"\x80\0"),
        (3, b"\0\0\5"),
        (4, b"\xff\xff\xff\0"),
        (5, b"\0\1\0\0\0\0"),
        (6, b"\x7f" + b"\xff" * 7),
        (7, struct.pack(">d", -2.5)),
        (8, b""),
        (9, b""),
        (12 + 2 * 3, b"\0\1\2"),
        (13 + 2 * 2, "é".encode()),
        (12, b""),
        (13, b""),
    ]
    expected = (None, -1, -32768, 5, -256, 1 << 32, (1 << 63) - 1, -2.5, 0, 1, b"\0\1\2", "é", b"", "")
    assert btrees.decode_record(record(*fields), "utf-8") == expected
    assert field_count(record(*fields)[:15]) == len(fields)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (record((10, b"")), "reserved"),
        (record((11, b"")), "reserved"),
        (record((2, b"\1")), "claims a field"),
        (record((1, b"\1\2")), "has fields for"),
        (b"\5\1", "claims a header"),
        (b"\0", "claims a header"),
        (b"", "cut short"),
        (b"\3\1\x81\0", "cut short"),
        (record((12 + 2 * (1 << 40), b"")), "claims a field"),
    ],
)
def test_a_record_whose_parts_do_not_fit_is_malformed(data, why):
    with pytest.raises(btrees.MalformedError, match=why):
        btrees.decode_record(data, "utf-8")


def test_text_that_is_not_valid_in_the_encoding_keeps_its_bytes():
    (value,) = btrees.decode_record(record((13 + 2 * 2, b"\xc3\x28")), "utf-8")
    assert isinstance(value, btrees.UndecodableText)
    assert bytes(value) == b"\xc3\x28"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("texts", [["plain words", "more"], ["grüße", "x"], ["東京都", "ひらがな", "サーバー"]])
def test_the_encoding_of_texts_is_guessed_from_their_bytes(encoding, texts):
    assert guess_encoding(text.encode(encoding) for text in texts) == encoding


# -- freelist --------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_free_pages() -> PlainFile:
    connection = database("CREATE TABLE t(x)", "CREATE TABLE kept(x)")
    connection.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO t SELECT zeroblob(400) FROM n"
    )
    connection.execute("DROP TABLE t")
    return as_file(connection)


def test_the_freelist_has_as_many_pages_as_the_header_says(with_free_pages):
    free = freelist(with_free_pages)
    assert free.complete
    assert len(free.trunks) > 2
    assert len(free.trunks) + len(free.leaves) == int.from_bytes(with_free_pages.content[36:40], "big") > 350
    assert not free.notes


def test_reading_the_freelist_stops_at_a_trunk_that_is_missing_and_names_it(with_free_pages):
    whole = freelist(with_free_pages)
    cut = freelist(with_free_pages.without(whole.trunks[1]))
    assert cut.trunks == whole.trunks[:2]
    assert set(cut.leaves) < set(whole.leaves)
    assert not cut.complete
    assert f"trunk page {whole.trunks[1]}" in cut.notes[0]


def test_a_freelist_that_comes_back_to_itself_ends(with_free_pages):
    whole = freelist(with_free_pages)
    content = bytearray(with_free_pages.content)
    at = (whole.trunks[-1] - 1) * 512
    content[at : at + 4] = whole.trunks[0].to_bytes(4, "big")
    again = freelist(PlainFile(bytes(content)))
    assert (again.trunks, again.leaves) == (whole.trunks, whole.leaves)
    assert not again.complete
    assert "comes back" in again.notes[0]


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [(4, 1000, "claims 1000 leaf pages"), (8, 0, "can't be free"), (8, 1, "can't be free"), (8, 1 << 31, "can't be free")],
)
def test_a_trunk_page_that_makes_no_sense_is_noted(with_free_pages, offset, value, why):
    content = bytearray(with_free_pages.content)
    at = (freelist(with_free_pages).trunks[0] - 1) * 512 + offset
    content[at : at + 4] = value.to_bytes(4, "big")
    free = freelist(PlainFile(bytes(content)))
    assert not free.complete
    assert why in free.notes[0]
    assert all(1 < page <= with_free_pages.page_count for page in free.leaves)


def test_without_page_1_there_is_no_freelist(with_free_pages):
    free = freelist(with_free_pages.without(1))
    assert (free.trunks, free.leaves, free.complete) == ((), (), False)
    assert "page 1" in free.notes[0]


# -- owners ----------------------------------------------------------------------------------------------------------


def test_a_missing_page_has_the_owner_of_the_page_that_points_to_it():
    """Root, child, first overflow page, index leaf, freelist trunk and leaf: each is named although it can't be read."""
    whole = example(512)
    known = whole.owners | dict.fromkeys(freelist(whole.file).trunks[:1], "freelist trunk")
    known |= dict.fromkeys(freelist(whole.file).leaves, "freelist leaf")
    connection = apsw.Connection("")
    connection.deserialize("main", whole.file.content)
    pages = dbstat(connection, "item")
    overflow = next(page for path, (page, _, _) in pages.items() if path.endswith("+000000"))
    child = next(page for path, (page, _, _) in pages.items() if path == "/000/")
    root, index = pages["/"][0], dbstat(connection, "item_a")["/000/"][0]
    for page in (1, root, child, overflow, index, freelist(whole.file).trunks[0], freelist(whole.file).leaves[0]):
        assert owners(whole.file.without(page))[page] == known[page]


def test_what_hangs_below_a_missing_page_is_unknown_without_a_pointer_map():
    connection = database("CREATE TABLE t(x)")
    connection.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO t SELECT zeroblob(99) FROM n"
    )
    file, pages = as_file(connection), dbstat(connection, "t")
    found = owners(file.without(pages["/"][0]))
    assert found[pages["/"][0]] == "table t"
    assert found[pages["/000/"][0]] == "unknown (unreachable)"


@pytest.mark.parametrize("auto_vacuum", [1, 2])
def test_what_hangs_below_a_missing_page_is_known_with_a_pointer_map(auto_vacuum):
    """Also a missing page below a missing page, and the overflow pages of its rows."""
    whole = example(512, auto_vacuum)
    connection = apsw.Connection("")
    connection.deserialize("main", whole.file.content)
    pages = dbstat(connection, "item")
    overflow = next(path for path in pages if path.endswith("+000002"))
    leaf = overflow[: overflow.rindex("/") + 1]
    found = owners(whole.file.without(pages["/"][0], pages[leaf][0], pages[overflow][0]))
    assert {found[page] for path, (page, _, _) in pages.items() if "+" not in path or path.startswith(leaf)} == {"table item"}


def test_of_a_page_on_a_freelist_that_is_cut_the_pointer_map_knows_that_it_is_free():
    whole = example(512, 2)
    trunks = freelist(whole.file).trunks
    found = owners(whole.file.without(trunks[0]))
    assert found[trunks[0]] == "freelist trunk"
    assert found[trunks[-1]] == "freelist"  # not "leaf": a trunk that is damaged does harm
    assert "unknown (unreachable)" not in found.values()


def test_a_table_without_rowid_is_a_table():
    connection = database("CREATE TABLE t(k PRIMARY KEY) WITHOUT ROWID")
    assert owners(as_file(connection)) == {1: "table sqlite_schema", 2: "table t"}


def test_without_page_1_everything_is_unknown():
    connection = database("CREATE TABLE t(x)")
    assert owners(as_file(connection).without(1)) == {1: "table sqlite_schema", 2: "unknown (unreachable)"}


def test_without_page_1_a_schema_on_other_pages_is_recognised():
    connection = database(*(f"CREATE TABLE table_{i}(a, b, c, d, e, f)" for i in range(20)), page_size=512)
    file = as_file(connection)
    found = owners(file.without(1))
    assert {found[page] for page in found} == {"table sqlite_schema", *(f"table table_{i}" for i in range(20))}


class Sparse:
    """A database of a gibibyte, of which only the first pages are there."""

    def __init__(self, file: PlainFile, page_count: int) -> None:
        self.file = file
        self.page_size = file.page_size
        self.usable_size = file.usable_size
        self.page_count = page_count

    def read(self, number: int) -> bytes | None:
        return self.file.read(number) if number <= self.file.page_count else bytes(self.page_size)


@pytest.mark.parametrize(("auto_vacuum", "lock", "map_page"), [(0, 16385, None), (1, 16385, 13110)])
def test_the_lock_byte_page_is_known(auto_vacuum, lock, map_page):
    source = Sparse(as_file(database("CREATE TABLE t(x)", page_size=65536, auto_vacuum=auto_vacuum)), 16400)
    found = btrees.owners(source.read, source.page_size, source.usable_size, source.page_count)
    assert str(found[lock]) == "lock-byte page"
    assert str(found[map_page or 2]) == ("pointer map" if map_page else "table t")
    assert btrees.lock_page(source) == lock


def test_a_page_of_the_pointer_map_gives_way_to_the_lock_bytes():
    """With usable pages of 505 to 509 bytes, every 102nd page is a map, and 1 + 0x40000000 / 512 would be one of them."""
    content = as_file(database("CREATE TABLE t(x)", page_size=512, auto_vacuum=1)).content
    file = Sparse(PlainFile(content), 0x40000000 // 512 + 300)
    group = next(group for group in range(2, 104) if (0x40000000 // 512 + 1 - 2) % group == 0)
    file.usable_size = 5 * (group - 1)
    pointers = btrees.PointerMap(file)
    lock = btrees.lock_page(file)
    assert lock + 1 in set(pointers.pages())
    assert lock not in set(pointers.pages())
    assert pointers.page_of(lock + 5) == lock + 1


# -- trees -----------------------------------------------------------------------------------------------------------


def rows(file: PlainFile, table: str) -> tuple[list[btrees.Row], btrees.Tree]:
    claims = btrees.claims_without_rows(file)
    schema = btrees.salvage_schema(file, claims)
    (entry,) = (entry for entry in schema.entries if entry.name == table)
    tree = btrees.Tree(file, entry.root, claims)
    return list(tree.rows(schema.encoding)), tree


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("page_size", [512, 65536])
def test_rows_come_in_the_order_of_their_rowids_with_the_values_that_sqlite_gives(encoding, page_size):
    whole = example(page_size, 0, encoding)
    found, tree = rows(whole.file, "item")
    assert [(row.rowid, row.values) for row in found] == [(row.rowid, row.values) for row in whole.rows if row.table == "item"]
    assert tree.is_complete
    assert tree.is_table


def test_the_column_that_is_the_rowid_is_none():
    connection = database(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES(-5, 'x'), (9223372036854775807, 'y')"
    )
    found, _ = rows(as_file(connection), "t")
    assert [(row.rowid, row.values) for row in found] == [(-5, (None, "x")), ((1 << 63) - 1, (None, "y"))]


def test_a_table_without_rowid_gives_its_primary_key_first():
    connection = database("CREATE TABLE t(x, k, y, PRIMARY KEY(k)) WITHOUT ROWID", "INSERT INTO t VALUES('x', 'k', 'y')")
    found, tree = rows(as_file(connection), "t")
    assert found == [btrees.Row(2, None, ("k", "x", "y"))]
    assert not tree.is_table


def test_a_row_whose_overflow_pages_are_broken_is_reported_and_not_returned():
    connection = database("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(5000)), ('whole')")
    file, pages = as_file(connection), dbstat(connection, "t")
    middle = pages["/000+000003"][0]
    found, tree = rows(file.without(middle), "t")
    assert [row.values for row in found] == [("whole",)]
    ((page, rowid, why),) = tree.damaged
    assert (page, rowid) == (pages["/"][0], 1)
    assert f"overflow page {middle} can't be read" in why


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (lambda _: 0, "is not there"),
        (lambda _: 9999, "is not there"),
        (lambda pages: pages["/000+000001"][0], "used twice"),
    ],
    ids=["to page 0", "beyond the end", "backwards"],
)
def test_a_chain_of_overflow_pages_that_leads_astray_is_a_damaged_row(target, why):
    connection = database("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(5000)), ('whole')")
    pages = dbstat(connection, "t")
    content = bytearray(connection.serialize("main"))
    at = (pages["/000+000003"][0] - 1) * 512
    content[at : at + 4] = target(pages).to_bytes(4, "big")
    found, tree = rows(PlainFile(bytes(content)), "t")
    assert [row.values for row in found] == [("whole",)]
    assert why in tree.damaged[0].why


def test_a_chain_that_goes_on_behind_its_row_is_a_damaged_row():
    """A page of another time is authentic, too: the row that it belonged to may have been longer."""
    connection = database("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(900)), ('whole')")
    last = max(page for path, (page, _, _) in dbstat(connection, "t").items() if "+" in path)
    content = bytearray(connection.serialize("main"))
    content[(last - 1) * 512 + 3] = 2
    found, tree = rows(PlainFile(bytes(content)), "t")
    assert [row.values for row in found] == [("whole",)]
    assert "behind its row's end" in tree.damaged[0].why


def test_a_row_that_claims_two_gigabytes_is_refused_without_reading_them():
    connection = database("CREATE TABLE t(x)", "INSERT INTO t VALUES(zeroblob(5000))")
    content = bytearray(connection.serialize("main"))
    page = content[512:1024]
    (pointer,) = struct.unpack(">H", page[8:10])
    assert page[pointer : pointer + 3] == varint(5003) + b"\1"
    read: list[int] = []
    for claimed, why in ((0x7FFFFFF0, "more than the database has"), (1 << 40, "a cell that claims 1099511627776 bytes")):
        cell = varint(claimed) + varint(1)
        changed = content.copy()
        changed[512 + pointer : 512 + pointer + len(cell)] = cell
        file = PlainFile(bytes(changed))
        claims: btrees.Claims = {}
        source = btrees.Pages(lambda number, file=file: read.append(number) or file.read(number), 512, 512, file.page_count)
        tree = btrees.Tree(source, 2, claims)
        assert list(tree.rows("utf-8")) == []
        assert why in tree.damaged[0].why
        assert set(claims) == {2}
    assert set(read) == {2}


def test_a_tree_that_comes_back_to_itself_ends_and_yields_each_row_once():
    connection = database("CREATE TABLE t(x)")
    connection.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT zeroblob(99) FROM n"
    )
    pages = dbstat(connection, "t")
    root, last = pages["/"][0], max(path for path in pages if path != "/")
    content = bytearray(connection.serialize("main"))
    content[(root - 1) * 512 + 8 : (root - 1) * 512 + 12] = root.to_bytes(4, "big")  # the right-most child
    found, tree = rows(PlainFile(bytes(content)), "t")
    assert [row.rowid for row in found] == list(range(1, 41 - pages[last][2]))
    assert [place.why for place in tree.lost] == [f"page {root} is used twice"]


def test_a_missing_page_is_known_with_the_rowids_that_it_may_have_had():
    connection = database("CREATE TABLE t(x)")
    connection.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO t SELECT zeroblob(99) FROM n"
    )
    file, pages = as_file(connection), dbstat(connection, "t")
    first, second = pages["/000/"], pages["/001/"]
    _, tree = rows(file.without(first[0], second[0]), "t")
    assert [(place.page, place.depth, place.low, place.high) for place in tree.lost] == [
        (first[0], 1, None, first[2]),
        (second[0], 1, first[2] + 1, first[2] + second[2]),
    ]
    assert not tree.gaps()  # other pages at that depth are leaves


def test_the_entries_of_a_complete_index_are_counted():
    whole = example(512)
    claims = btrees.claims_without_rows(whole.file)
    schema = btrees.salvage_schema(whole.file, claims)
    (index,) = (entry for entry in schema.entries if entry.name == "item_a")
    tree = btrees.Tree(whole.file, index.root, claims)
    assert tree.claim() == sum(row.table == "item" for row in whole.rows)
    assert tree.is_complete
    assert {page for page, root in claims.items() if root == index.root} == {
        page for page, owner in whole.owners.items() if owner == "index item_a"
    }


def test_a_page_that_is_no_b_tree_page_is_malformed():
    file = as_file(database("CREATE TABLE t(x)"))
    for flag in (0, 1, 14, 255):
        content = bytearray(file.content)
        content[512] = flag
        with pytest.raises(btrees.MalformedError, match="no b-tree page"):
            btrees.read_node(PlainFile(bytes(content)), 2)
    content = bytearray(file.content)
    content[512 + 3 : 512 + 5] = b"\1\0"
    with pytest.raises(btrees.MalformedError, match="claims 256 cells"):
        btrees.read_node(PlainFile(bytes(content)), 2)


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_payloads_of_every_size_around_the_limits_are_read(page_size):
    """What stays on the page and what goes to overflow pages changes with every byte of a payload's size."""
    usable = page_size - 32 if page_size < 65536 else page_size
    connection = apsw.Connection("")
    connection.pragma("page_size", page_size)
    connection.reserve_bytes("main", page_size - usable)
    connection.execute("CREATE TABLE t(x); CREATE TABLE w(k PRIMARY KEY, x) WITHOUT ROWID")
    limits = [usable - 35, (usable - 12) * 64 // 255 - 23, (usable - 12) * 32 // 255 - 23]
    sizes = {limit + turn * (usable - 4) + step for limit in limits for turn in (0, 1, 2) for step in range(-8, 9)}
    for i, size in enumerate(sorted(sizes)):
        connection.execute("INSERT INTO t VALUES(?)", (bytes([i % 256]) * size,))
        connection.execute("INSERT INTO w VALUES(?, ?)", (i, bytes([i % 256]) * size))
    for table, query in (("t", "SELECT rowid, x FROM t"), ("w", "SELECT NULL, k, x FROM w")):
        found, tree = rows(as_file(connection), table)
        expected = connection.execute(query).fetchall()
        assert sorted((row.rowid or 0, *row.values) for row in found) == sorted((rowid or 0, *rest) for rowid, *rest in expected)
        assert tree.is_complete


@pytest.mark.parametrize("pointer", [0, 8, 9, 509, 65535])
def test_a_cell_that_lies_in_the_header_or_beyond_the_page_is_a_damaged_row(pointer):
    connection = database("CREATE TABLE t(x)", "INSERT INTO t VALUES('first'), ('second')")
    content = bytearray(connection.serialize("main"))
    content[512 + 8 : 512 + 10] = pointer.to_bytes(2, "big")
    found, tree = rows(PlainFile(bytes(content)), "t")
    assert [row.values for row in found] == [("second",)]
    assert f"a cell at offset {pointer}" in tree.damaged[0].why


def table_of_100(connection: apsw.Connection, root_flag: int = 5) -> bytearray:
    connection.execute(
        "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO t SELECT zeroblob(99) FROM n"
    )
    content = bytearray(connection.serialize("main"))
    content[512] = root_flag
    return content


def test_a_malformed_cell_of_an_interior_page_is_a_lost_page():
    content = table_of_100(database("CREATE TABLE t(x)"))
    content[512 + 12 : 512 + 14] = b"\0\0"
    found, tree = rows(PlainFile(bytes(content)), "t")
    assert 0 < len(found) < 99
    assert [(place.page, place.depth) for place in tree.lost] == [(2, 1)]
    assert "a cell at offset 0" in tree.lost[0].why


def test_pages_of_an_index_are_not_taken_for_a_tables():
    found, tree = rows(PlainFile(bytes(table_of_100(database("CREATE TABLE t(x)"), root_flag=2))), "t")
    assert all(place.why.endswith("is not of the kind of its tree") for place in tree.lost if place.page > 2)
    assert not any(row.rowid for row in found)


# -- orphans ---------------------------------------------------------------------------------------------------------


def family(*lost: btrees.Place, leaf_depth: int | None = 3, root: int = 10, is_table: bool = True, fields: int | None = 4):
    tree = btrees.Tree(example().file, root, {}, is_table=is_table, lost=list(lost), leaf_depth=leaf_depth)
    return btrees.Family(tree, is_table, fields)


ORPHANS = btrees.Orphans(top=50, is_table=True, pages=[50], height=1, low=100, high=200, fields=4)


@pytest.mark.parametrize(
    ("it", "fits"),
    [
        (family(btrees.Place(9, 1, 100, 200)), True),
        (family(btrees.Place(9, 1, None, None)), True),
        (family(btrees.Place(9, 0, None, None), leaf_depth=None), True),
        (family(btrees.Place(9, 1, 1, 5), btrees.Place(8, 1, 90, 210)), True),
        (family(btrees.Place(9, 1, 100, 200), fields=None), True),
        (family(btrees.Place(9, 1, 101, None)), False),  # smaller rowids than the gap can have had
        (family(btrees.Place(9, 1, None, 199)), False),  # larger ones
        (family(btrees.Place(9, 1, 100, 200), fields=3), False),  # more fields than the table has columns
        (family(btrees.Place(9, 2, 100, 200)), False),  # two levels where there is room for one
        (family(btrees.Place(9, 3, 100, 200)), False),  # the lost page was a leaf
        (family(btrees.Place(9, 1, 100, 200), is_table=False), False),
        (family(), False),
    ],
)
def test_orphans_fit_a_gap_by_rowids_fields_depth_and_kind(it, fits):
    assert btrees.tree_by_elimination(ORPHANS, [it]) == (10 if fits else 0)


def test_orphans_that_fit_two_trees_belong_to_neither_for_certain():
    place = btrees.Place(9, 1)
    assert btrees.tree_by_elimination(ORPHANS, [family(place), family(place, root=11)]) == 0
    assert btrees.tree_by_elimination(ORPHANS, [family(place), family(place, root=11, fields=2)]) == 10


def test_orphans_that_hang_together_are_found_as_one():
    whole = example(512)
    connection = apsw.Connection("")
    connection.deserialize("main", whole.file.content)
    pages = dbstat(connection, "pair")
    assert any(path.count("/") == 3 for path in pages)  # three levels: the root is missing, and a page below it is found
    claims = {page: 1 for page in whole.owners if whole.owners[page] != "table pair"} | {pages["/"][0]: pages["/"][0]}
    free = freelist(whole.file)
    found = btrees.find_orphans(whole.file, claims, {*free.trunks, *free.leaves})
    tops = {page for path, (page, _, _) in pages.items() if path.count("/") == 2 and "+" not in path}
    assert {orphans.top for orphans in found} == tops
    below = {page for path, (page, _, _) in pages.items() if path != "/" and "+" not in path}
    assert sorted(page for orphans in found for page in orphans.pages) == sorted(below)
    assert not any(orphans.is_table for orphans in found)
    assert {orphans.height for orphans in found} == {1}


# -- the schema without page 1 ---------------------------------------------------------------------------------------


def many_tables() -> PlainFile:
    return as_file(database(*(f"CREATE TABLE table_{i}(a, b, c, d, e, f)" for i in range(20))))


@pytest.mark.parametrize(
    ("old", "new"), [(b"(a, b, c", b"(b, a, c"), (b"table_7", b"tablex7")], ids=["same name", "same root page"]
)
def test_of_a_schema_in_two_versions_what_they_disagree_on_is_not_used(old, new):
    file = many_tables()
    leaf = next(n for n in range(2, file.page_count) if b"table_7(" in file.content[(n - 1) * 512 : n * 512])
    page = file.content[(leaf - 1) * 512 : leaf * 512]
    other = page.replace(old, new)
    assert other != page
    schema = btrees.salvage_schema(PlainFile(file.content + other, frozenset({1})), {})
    found = [entry.name for entry in schema.entries]
    assert len(found) == len(set(found))
    assert "table_7" not in found
    assert "tablex7" not in found
    assert "table_0" in found or old != b"table_7"
    assert any("more than one version" in note and "table_7" in note for note in schema.notes)
    assert not schema.complete


def test_a_users_table_that_quotes_the_schema_is_not_taken_for_it():
    connection = database("CREATE TABLE t(a, b, c, d, e)")
    connection.execute("INSERT INTO t VALUES('table', 'x', 'x', 2, 'CREATE TABLE x(y)'), ('something', 'else', 1, 2, 3)")
    schema = btrees.salvage_schema(as_file(connection).without(1), {})
    assert schema.entries == ()
