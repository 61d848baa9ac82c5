"""A Django project on encrypted and audited files, run in processes of its own."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosaudit.verifications import verify
from heliosvfs.vfs import files_of
from tests.adapters import projects
from tests.adapters.projects import Project

pytest.importorskip("django")

QUERIES = """
import datetime as dt, decimal
from django.db import connection, transaction, IntegrityError
from django.db.models import Avg, Count, StdDev
from django.db.models.functions import TruncMonth
from clinic.models import Patient, Encounter

seen = dt.datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=dt.timezone.utc)
ada = Patient.objects.create(
    name="Ada Lovelace", born=dt.date(1815, 12, 10), seen=seen, fee=decimal.Decimal("12.50"), details={"a": [1]},
    photo=b"\\0\\xff",
)
Encounter.objects.bulk_create([Encounter(patient=ada, note="allergic to laudanum"), Encounter(patient=ada, note="100%")])
found = Patient.objects.annotate(n=Count("encounter")).get(name__regex="^A.a ", details__a__0=1)
assert (found.n, found.born, found.seen, found.fee) == (2, dt.date(1815, 12, 10), seen, decimal.Decimal("12.50"))
assert (found.code, bytes(found.photo), found.active) == (ada.code, b"\\0\\xff", True)
assert Patient.objects.annotate(month=TruncMonth("seen")).get().month.month == 3
assert Patient.objects.aggregate(a=Avg("fee"), s=StdDev("fee")) == {"a": decimal.Decimal("12.5"), "s": decimal.Decimal("0")}
with connection.cursor() as cursor:
    cursor.execute("SELECT %s, '100%%' WHERE %s LIKE 'l%%'", [1, "laudanum"])
    assert cursor.fetchall() == [(1, "100%")]
    cursor.execute("SELECT %(a)s + %(a)s", {"a": 21})
    assert cursor.fetchone() == (42,)
    cursor.executemany("UPDATE clinic_encounter SET note = %s WHERE id = %s", ((f"note {n}", n) for n in (1, 2)))
    assert cursor.rowcount == 2

with transaction.atomic():
    Patient.objects.create(name="kept")
    try:
        with transaction.atomic():
            Patient.objects.create(name="lost", code=ada.code)
    except IntegrityError as error:
        assert "UNIQUE constraint failed" in str(error)
    try:
        with transaction.atomic():
            Patient.objects.create(name="lost too")
            raise KeyError
    except KeyError:
        pass
try:
    with transaction.atomic():
        Encounter.objects.create(patient_id=999, note="of nobody")
except IntegrityError as error:
    assert "FOREIGN KEY" in str(error)
assert sorted(Patient.objects.values_list("name", flat=True)) == ["Ada Lovelace", "kept"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return projects.make(tmp_path)


@pytest.fixture
def migrated(project: Project) -> Project:
    project.manage("makemigrations", "clinic")
    project.manage("migrate")
    return project


def test_a_project_migrates_writes_and_reads_and_nothing_of_it_is_on_disk(migrated: Project) -> None:
    assert migrated.manage("makemigrations", "--check") == "No changes detected\n"
    migrated.program(QUERIES)
    for file in migrated.folder.glob("clinic.db*"):
        assert b"laudanum" not in file.read_bytes()
        assert b"clinic_patient" not in file.read_bytes()
    with closing(heliosvfs.connect(migrated.database, key=migrated.key)) as connection:
        assert connection.execute("SELECT name FROM clinic_patient WHERE id = 1").get == "Ada Lovelace"
    dumped = json.loads(migrated.manage("dumpdata", "clinic.patient"))
    (migrated.folder / "patients.json").write_text(json.dumps(dumped))
    migrated.manage("flush", "--no-input")
    migrated.manage("loaddata", "patients.json")
    assert json.loads(migrated.manage("dumpdata", "clinic.patient")) == dumped


def test_a_field_that_is_added_and_removed_keeps_the_rows(migrated: Project) -> None:
    migrated.program(QUERIES)
    models = migrated.folder / "clinic" / "models.py"
    before = models.read_text()
    models.write_text(
        before.replace("    note = models", "    kind = models.CharField(max_length=9, default='visit')\n    note = models")
    )
    migrated.manage("makemigrations", "clinic")
    migrated.manage("migrate")
    migrated.program("from clinic.models import Encounter; assert [e.kind for e in Encounter.objects.all()] == ['visit'] * 2")
    migrated.manage("migrate", "clinic", "0001")
    models.write_text(before)
    migrated.program("from clinic.models import Encounter; assert Encounter.objects.count() == 2")


def test_the_shell_of_dbshell_has_the_key_and_its_command_has_not(migrated: Project) -> None:
    assert migrated.manage("dbshell", "--", "SELECT 6 * 7, count(*) FROM clinic_patient").strip() == "42|0"
    shown = migrated.manage("dbshell", "--", ".shell cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' '\\n'")
    assert "shell" in shown
    assert migrated.key.hex() not in shown
    secret = "the passphrase of a test"
    source = "heliosvfs.KeyFromCommand(['cat', 'secret'], passphrase=True)"
    (migrated.folder / "secret").write_text(secret)
    with closing(heliosvfs.connect(migrated.database, key=migrated.key)) as connection:
        connection.add_key(secret, label="second", settings=heliosvfs.KdfSettings(memory_kib=8192, passes=1, lanes=1))
    migrated.settings(f"{{'key': {source}}}")
    assert migrated.manage("dbshell", "--", "SELECT 6 * 7").strip() == "42"


def test_a_configuration_says_how_a_project_and_its_shell_open_the_database(project: Project) -> None:
    (project.folder / "heliosdb.toml").write_text(
        """
[encryption]
key_source = { File = "clinic.key" }

[audit]
enabled = true
log_select = true
"""
    )
    project.settings("{'config': 'heliosdb.toml'}")
    project.manage("makemigrations", "clinic")
    project.manage("migrate")
    project.manage("dbshell", "--", "SELECT count(*) AS asked_in_the_shell FROM clinic_patient")
    with closing(heliosvfs.connect(project.database, key=project.key)) as connection:
        found = connection.execute("SELECT operation FROM __audit_log WHERE query LIKE '%asked_in_the_shell%'").fetchall()
    assert ("SELECT",) in found


def test_inspectdb_shows_the_tables_of_the_application_and_not_those_of_the_audit_log(project: Project) -> None:
    project.settings("{'key_file': 'clinic.key', 'audit': Policy()}")
    project.manage("makemigrations", "clinic")
    project.manage("migrate")
    shown = project.manage("inspectdb")
    assert "class ClinicPatient(models.Model)" in shown
    assert "fee = models.DecimalField(" in shown
    assert "audit" not in shown.lower()


def test_a_key_comes_from_the_environment_if_the_settings_say_nothing(project: Project) -> None:
    project.settings("{}")
    project.manage("makemigrations", "clinic")
    assert "heliosvfs.configure" in project.manage("migrate", succeeds=False)
    project.manage("migrate", HELIOSVFS_KEY_FILE=str(project.folder / "clinic.key"))
    assert "[X] 0001_initial" in project.manage("showmigrations", "clinic", HELIOSVFS_KEY=project.key.hex())
    assert "clinic.db" in project.manage("migrate", succeeds=False, HELIOSVFS_KEY="ab" * 32)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ("{'key': 'hunter2 hunter2'}", "{}"),
        ("{'key': b'hunter2 hunter2 '*2}", "{}"),
        ("{}", "{'PASSWORD': 'hunter2 hunter2'}"),
    ],
)
def test_a_key_in_the_settings_themselves_is_refused_and_not_shown(project: Project, options: str, more: str) -> None:
    project.settings(options, more)
    shown = project.manage("migrate", succeeds=False)
    assert "ImproperlyConfigured" in shown
    assert "hunter2 hunter2" not in shown


def test_two_keys_in_the_settings_are_refused(project: Project) -> None:
    project.settings("{'key': heliosvfs.KeyFile('a'), 'key_file': 'b'}")
    assert "one of them is the key" in project.manage("migrate", succeeds=False)


PAGES = """
from django.conf import settings
from django.db import connections
from django.test import Client
page = Client(raise_request_exception=False).get("/patients/").content.decode()
print(page)
"""


def test_neither_commands_nor_pages_of_errors_show_a_key(migrated: Project) -> None:
    (migrated.folder / "secret").write_text("horse battery staple")
    migrated.settings("{'key': heliosvfs.KeyFromCommand(['cat', 'secret'], passphrase=True)}")
    assert "horse battery" not in migrated.manage("diffsettings", "--all")
    page = migrated.program(PAGES)
    assert "the key does not open" in page or "WrongKeyError" in page
    assert "get_new_connection" in page  # frames, and their variables, are shown
    for form in ("horse battery", "b&#x27;horse", "686f727365"):
        assert form not in page
    assert "heliosvfs/dbapi2/" not in page
    assert "heliosvfs/vfs/" not in page


def test_pages_of_errors_show_nothing_of_what_reads_an_altered_page(migrated: Project) -> None:
    with closing(heliosvfs.connect(migrated.database, key=migrated.key)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'clinic_patient'").get
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        offset = files_of(connection)[0].access.superblock.layout.offset(root)
    with migrated.database.open("r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)[0]
        file.seek(offset + 100)
        file.write(bytes([byte ^ 1]))
    page = migrated.program(PAGES)
    assert "TamperedError" in page
    assert "django/db/backends/utils.py" in page
    assert "heliosvfs/vfs/" not in page
    assert "heliosvfs/dbapi2/" not in page


def test_connections_are_kept_between_requests_and_each_thread_has_its_own(migrated: Project) -> None:
    migrated.settings(more="{'CONN_MAX_AGE': 600, 'CONN_HEALTH_CHECKS': True}")
    migrated.program(
        QUERIES
        + """
import threading
from django.core.signals import request_finished, request_started
from django.db import connections
from django.test import Client

def used():
    request_started.send(None)
    Patient.objects.count()
    request_finished.send(None)
    return connection.connection

first = used()
assert first is not None and used() is first
others = []
def work():
    for number in range(10):
        Patient.objects.create(name=f"thread {threading.get_ident()}")
    others.append(used())
    connections.close_all()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len({id(other) for other in [first, *others]}) == 5
assert Patient.objects.filter(name__startswith="thread").count() == 40
"""
    )


def test_requests_are_audited_with_their_user_and_address(project: Project) -> None:
    project.settings("{'key_file': 'clinic.key', 'audit': Policy(log_select=True)}")
    project.manage("makemigrations", "clinic")
    project.manage("migrate")
    project.program("""
from django.contrib.auth.models import User
from django.test import Client
from clinic.models import Patient
Patient.objects.create(name="Ada Lovelace")
User.objects.create_user("c.babbage")
client = Client(REMOTE_ADDR="192.0.2.7")
assert client.get("/patients/").json() == {"names": ["Ada Lovelace"]}
client.force_login(User.objects.get())
assert client.get("/patients/").json() == {"names": ["Ada Lovelace"]}
""")
    with closing(heliosvfs.connect(project.database, key=project.key)) as connection:
        found = connection.execute(
            "SELECT user, client_ip FROM __audit_log WHERE operation = 'SELECT' AND target = 'clinic_patient' ORDER BY id"
        ).fetchall()
        assert verify(connection).ok
    assert found == [("anonymous", "192.0.2.7"), ("c.babbage", "192.0.2.7")]


TESTS = """
import threading
from django.db import connection, connections
from django.test import TestCase, TransactionTestCase
from clinic.models import Patient

class First(TestCase):
    @classmethod
    def setUpTestData(cls):
        Patient.objects.create(name="Ada")

    def test_one(self):
        Patient.objects.create(name="Grace")
        self.assertEqual(Patient.objects.count(), 2)

    def test_another(self):
        self.assertEqual(Patient.objects.count(), 1)

class Second(TransactionTestCase):
    def test_threads_see_one_database(self):
        Patient.objects.create(name="Ada")
        found = []
        def look():
            found.extend(patient.name for patient in Patient.objects.all())
            connection.close()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        self.assertEqual(found, ["Ada"])

class Third(TestCase):
    def test_nothing_is_left_of_others(self):
        self.assertEqual(Patient.objects.count(), 0)
"""


IN_FILES = "{'TEST': {'NAME': 'test.db'}}"


@pytest.mark.parametrize(
    ("more", "command", "start", "audit"),
    [
        ("{}", [], "fork", "Policy()"),
        ("{}", ["--parallel", "2"], "fork", "None"),
        ("{}", ["--parallel", "2"], "spawn", "None"),
        ("{}", ["--parallel", "2"], "spawn", "Policy()"),
        (IN_FILES, ["--parallel", "2"], "fork", "Policy()"),
        (IN_FILES, ["--parallel", "2"], "spawn", "None"),
    ],
    ids=["memory-audited", "memory-forks", "memory-spawned", "memory-spawned-audited", "files-forks-audited", "files-spawned"],
)
def test_a_projects_own_tests_run(migrated: Project, more: str, command: list[str], start: str, audit: str) -> None:
    migrated.settings(f"{{'key_file': 'clinic.key', 'audit': {audit}}}", more)
    (migrated.folder / "clinic" / "tests.py").write_text(TESTS)
    shown = migrated.manage("test", *command, START=start)
    assert "Ran 4 tests" in shown
    assert "OK" in shown
    assert not list(migrated.folder.glob("*.sqlite3"))
    assert not list(migrated.folder.glob("test*.db"))
    assert os.path.exists(migrated.database)
