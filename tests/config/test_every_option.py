"""Every option has an effect that can be seen, or is refused: the walk fails when an option is added without a line here."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

import heliosvfs
from heliosaudit import AccessDeniedError
from heliosvfs import Config, ConfigError, EmbeddedDatabase, PolicyViolationError, metrics
from heliosvfs.config.applying import OptionNotInEffectWarning


@dataclass
class Place:
    """Where a test works, and how it opens a database."""

    folder: Path
    key: Path

    @property
    def path(self) -> Path:
        return self.folder / "app.db"

    def config(self, **sections: dict[str, Any]) -> dict[str, Any]:
        made = {name: dict(section) for name, section in sections.items()}
        encryption = made.setdefault("encryption", {})
        if encryption.get("enabled", True):
            encryption.setdefault("key_source", {"File": str(self.key)})
        return made

    def open(self, **sections: dict[str, Any]) -> Any:
        return closing(heliosvfs.connect(self.path, config=self.config(**sections)))

    def refused(self, match: str, **sections: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=match):
            Config.from_dict(self.config(**sections))

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run code in another process, for what concerns a whole process."""
        begin = f"import heliosvfs, sys\npath, key = {str(self.path)!r}, {str(self.key)!r}\n"
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", begin + code], capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def place(tmp_path: Path, key_file: Path) -> Place:
    return Place(tmp_path, key_file)


EFFECTS: dict[str, Callable[[Place], None]] = {}


def effect(*options: str) -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    def note(check: Callable[[Place], None]) -> Callable[[Place], None]:
        for option in options:
            assert option not in EFFECTS
            EFFECTS[option] = check
        return check

    return note


def log_of(connection: Any) -> list[Any]:
    connection.auditor.flush()
    columns = "operation, class, query, client_ip, application_name, database_name, execution_time_us, custom, record->>19"
    return connection.auditor.writer.run(f"SELECT {columns} FROM main.__audit_log")


def operations(connection: Any) -> set[str]:
    return {row[0] for row in log_of(connection)}


# -- [database] ------------------------------------------------------------------------------------------------------------


@effect("database.path")
def _(place: Place) -> None:
    other = place.folder / "named.db"
    heliosvfs.connect(config=place.config(database={"path": str(other)})).close()
    assert other.exists()
    with pytest.raises(ConfigError, match=r"database\.path"):
        heliosvfs.connect(config=place.config())


@effect("database.page_size")
def _(place: Place) -> None:
    with place.open(database={"page_size": 1024}) as connection:
        assert connection.pragma("page_size") == 1024
    place.refused("page_size", database={"page_size": 1000})


@effect("database.enable_wal")
def _(place: Place) -> None:
    for enabled, mode in ((True, "wal"), (False, "delete")):
        with place.open(database={"enable_wal": enabled}) as connection:
            assert connection.pragma("journal_mode") == mode


@effect("database.memory_limit_mb")
def _(place: Place) -> None:
    done = place.run(
        "import apsw\n"
        "c = heliosvfs.connect(path, config={'database': {'memory_limit_mb': 8}, 'encryption': {'key_source': {'File': key}}})\n"
        "assert apsw.hard_heap_limit(-1) == 8 << 20\n"
        "assert c.pragma('cache_size') == -2048\n"
        "c.execute('CREATE TABLE t(x)')\n"
        "with c: c.executemany('INSERT INTO t VALUES(?)', ((bytes(4000),) for _ in range(6000)))\n"
        "assert apsw.memory_used() < 8 << 20\n"
        "try: c.execute('SELECT zeroblob(20000000)').fetchall()\n"
        "except apsw.NoMemError: print('bounded')\n"
    )
    assert done.stdout == "bounded\n", done.stderr


@effect("database.cache_mb")
def _(place: Place) -> None:
    with place.open(database={"cache_mb": 3}) as connection:
        assert connection.pragma("cache_size") == -3072


# -- [encryption] ----------------------------------------------------------------------------------------------------------


@effect("encryption.enabled")
def _(place: Place) -> None:
    with place.open(encryption={"enabled": False}) as connection:
        connection.execute("CREATE TABLE t(x)")
        assert not connection.get_storage_info()["encryption_enabled"]
    assert place.path.read_bytes().startswith(b"SQLite format 3")
    place.refused("encryption.enabled.*164.312", encryption={"enabled": False}, compliance={"preset": "hipaa"})


@effect("encryption.algorithm")
def _(place: Place) -> None:
    with place.open(encryption={"algorithm": "AES-256-GCM"}) as connection:
        assert connection.get_storage_info()["encryption_algorithm"] == "AES-256-GCM"
    place.refused("algorithm", encryption={"algorithm": "ChaCha20"})


@effect("encryption.key_source")
def _(place: Place) -> None:
    place.open().__enter__().close()
    (place.folder / "wrong").write_bytes(bytes(32))
    (place.folder / "wrong").chmod(0o600)
    with pytest.raises(heliosvfs.WrongKeyError):
        place.open(encryption={"key_source": {"File": str(place.folder / "wrong")}})
    command = shlex.split(f'{sys.executable} -c \'print(open("{place.key}").read(), end="")\'')
    with place.open(encryption={"key_source": {"Command": command}}) as connection:
        assert connection.get_storage_info()["encryption_enabled"]


@effect("encryption.rotation_interval_days", "encryption.auto_rotate")
def _(place: Place) -> None:
    with place.open(encryption={"rotation_interval_days": 90}) as connection:
        info = connection.get_storage_info()
        assert info["rotation_interval_days"] == 90
        assert not info["rotation_is_due"]
    place.refused("rotation_interval_days", encryption={"auto_rotate": True})
    with place.open(encryption={"rotation_interval_days": 90, "auto_rotate": True}) as connection:
        assert connection.get_storage_info()["key_epochs"] == 1


@effect("encryption.fips_mode")
def _(place: Place) -> None:
    with place.open(encryption={"fips_mode": "algorithms-only"}) as connection:
        assert connection.get_storage_info()["fips_mode"]
    if not heliosvfs.fips.status().validated_modules:
        with pytest.raises(PolicyViolationError, match="FIPS"):
            place.open(encryption={"fips_mode": True})


# -- [audit] ---------------------------------------------------------------------------------------------------------------


@effect("audit.enabled")
def _(place: Place) -> None:
    with place.open() as connection:
        assert not connection.table_exists("main", "__audit_log")
    with place.open(audit={"enabled": True}) as connection:
        assert connection.table_exists("main", "__audit_log")


def _class_is_switched(place: Place, option: str, sql: str, operation: str) -> None:
    for is_on in (True, False):
        with closing(
            heliosvfs.connect(place.folder / f"{option}{is_on}.db", config=place.config(audit={"enabled": True, option: is_on}))
        ) as connection:
            connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)").fetchall()
            connection.execute(sql).fetchall()
            assert (operation in operations(connection)) == is_on, option


@effect("audit.log_ddl", "audit.log_dml", "audit.log_select", "audit.log_transactions", "audit.log_auth", "audit.log_admin")
def _(place: Place) -> None:
    _class_is_switched(place, "log_ddl", "CREATE TABLE u(x)", "CREATE TABLE")
    _class_is_switched(place, "log_dml", "DELETE FROM t", "DELETE")
    _class_is_switched(place, "log_select", "SELECT * FROM t", "SELECT")
    _class_is_switched(place, "log_transactions", "BEGIN; ROLLBACK", "BEGIN")
    _class_is_switched(place, "log_auth", "SELECT 1", "OPEN")
    _class_is_switched(place, "log_admin", "PRAGMA user_version = 3", "PRAGMA")


@effect("audit.retention_days")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True, "retention_days": 400}) as connection:
        assert connection.auditor.policy.retention_days == 400
    place.refused("2192 days.*164.316", audit={"retention_days": 2191}, compliance={"preset": "hipaa"})
    Config.from_dict(place.config(audit={"retention_days": 2192}, compliance={"preset": "hipaa"}))


@effect("audit.async_buffer_size")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True, "log_select": True, "async_buffer_size": 3}) as connection:
        for _ in range(7):
            connection.execute("SELECT 1").fetchall()
        assert len(connection.auditor.ledger.transactions.facts) < 3


@effect("audit.enable_checksums")
def _(place: Place) -> None:
    place.refused("enable_checksums", audit={"enable_checksums": False})


@effect("audit.max_query_length", "audit.max_value_length")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True, "max_query_length": 80, "max_value_length": 5}) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(?)", ("abcdefghij",))
        connection.execute("INSERT INTO t SELECT '" + "y" * 200 + "'")
        shown = [row[2] for row in log_of(connection) if row[0] == "INSERT"]
        assert "'abcde' /* 5 more characters */" in shown[0]
        assert "more characters" in shown[1]
        assert "y" * 90 not in shown[1]


@effect("audit.read_durability")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True, "log_select": True, "read_durability": "strict"}) as connection:
        cursor = connection.execute("SELECT 1 UNION SELECT 2")
        assert any(row[0] == "SELECT" for row in connection.auditor.writer.run("SELECT operation FROM main.__audit_log"))
        cursor.close()


@effect("audit.capture_parameters")
def _(place: Place) -> None:
    for kind, is_shown in (("expanded", True), ("redactable", False), ("none", False)):
        audit = {"enabled": True, "capture_parameters": kind}
        with closing(heliosvfs.connect(place.folder / f"{kind}.db", config=place.config(audit=audit))) as connection:
            connection.execute("CREATE TABLE t(x)")
            connection.execute("INSERT INTO t VALUES(?)", ("Ada",))
            assert any("'Ada'" in row[2] for row in log_of(connection)) == is_shown
            assert (connection.auditor.writer.run("SELECT count(*) FROM main.__audit_values")[0][0] == 1) == (
                kind == "redactable"
            )


@effect("audit.hash_key_source")
def _(place: Place) -> None:
    hashed = {"enabled": True, "capture_parameters": "hashed", "hash_key_source": {"File": str(place.key)}}
    with place.open(audit=hashed) as connection:
        connection.execute("CREATE TABLE t(x)")
        for value in ("Ada", "Ada", "Bob"):
            connection.execute("INSERT INTO t VALUES(?)", (value,))
        one, two, other = (row[2] for row in log_of(connection) if row[0] == "INSERT")
        assert one == two != other
        assert "Ada" not in one
    place.refused("hash_key_source", audit={"enabled": True, "capture_parameters": "hashed"})
    place.refused("hash_key_source", audit={"hash_key_source": {"File": str(place.key)}})


@effect("audit.capture_rows")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True, "capture_rows": "values"}) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES(7)")
        assert any(row[8] and '"new":["7"]' in row[8] for row in log_of(connection))
    place.refused("capture_rows", audit={"capture_rows": "values", "capture_parameters": "redactable"})


@effect("audit.include_tables", "audit.exclude_tables", "audit.include_users", "audit.exclude_users", "audit.redacted_columns")
def _(place: Place) -> None:
    def written(name: str, user: str = "ada", **audit: Any) -> int:
        config = place.config(audit={"enabled": True, **audit})
        with closing(heliosvfs.connect(place.folder / f"{name}.db", config=config)) as connection, heliosvfs.session(user=user):
            connection.execute("CREATE TABLE t(x, secret); CREATE TABLE u(x)").fetchall()
            connection.execute("INSERT INTO t VALUES(1, ?)", ("geheim",))
            connection.execute("INSERT INTO u VALUES(1)")
            rows = log_of(connection)
            return sum(row[0] == "INSERT" for row in rows) + 100 * any("geheim" in str(row) for row in rows)

    assert written("all") == 102
    assert written("include", include_tables=["u"]) == 1
    assert written("exclude", exclude_tables=["U"]) == 101
    assert written("users", include_users=["bob"]) == 0
    assert written("others", exclude_users=["ada"]) == 0
    assert written("redacted", redacted_columns=["t.secret"]) == 2


@effect(
    *(
        f"audit.capture_metadata.capture_{name}"
        for name in ("client_ip", "application_name", "database_name", "execution_time", "custom_fields")
    )
)
def _(place: Place) -> None:
    for is_on in (True, False):
        names = ("client_ip", "application_name", "database_name", "execution_time", "custom_fields")
        audit = {"enabled": True, "capture_metadata": {f"capture_{name}": is_on for name in names}}
        with closing(heliosvfs.connect(place.folder / f"{is_on}.db", config=place.config(audit=audit))) as connection:
            with heliosvfs.session(user="ada", client_ip="10.0.0.7", application_name="ward", ticket=5):
                connection.execute("CREATE TABLE t(x)")
                connection.execute("INSERT INTO t VALUES(1)")
            (row,) = (row for row in log_of(connection) if row[0] == "INSERT")
            assert [value is not None for value in row[3:8]] == [is_on] * 5


# -- [logging], [monitoring] -----------------------------------------------------------------------------------------------


@effect("logging.audit_log_enabled", "logging.audit_log_path")
def _(place: Place) -> None:
    file = place.folder / "activity.log"
    logging = {"audit_log_enabled": True, "audit_log_path": str(file)}
    place.open(logging=logging).__enter__().close()
    with pytest.raises(heliosvfs.WrongKeyError):
        heliosvfs.connect(place.path, key=os.urandom(32), config=place.config(logging=logging))
    assert '"UNLOCK"' in file.read_text()
    assert '"success": false' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    place.refused("audit_log_path", logging={"audit_log_enabled": True})
    with pytest.raises(heliosvfs.UsageError, match="activity log"):
        place.open(logging={"audit_log_enabled": True, "audit_log_path": str(place.folder / "no" / "folder")})


@effect("logging.log_encryption_operations", "logging.verbose_logging", "monitoring.verbose_logging")
def _(place: Place) -> None:
    file = place.folder / "activity.log"
    logging: dict[str, Any] = {"audit_log_enabled": True, "audit_log_path": str(file)}
    place.open(logging=logging).__enter__().close()
    assert file.read_text() == ""
    with place.open(logging={**logging, "log_encryption_operations": True}) as connection:
        connection.add_key(os.urandom(32), label="second")
    assert '"slots_added": ["second"]' in file.read_text()
    assert '"UNLOCK"' not in file.read_text()
    place.open(logging={**logging, "verbose_logging": True}).__enter__().close()
    assert file.read_text().count('"UNLOCK"') == 1
    place.open(logging=logging, monitoring={"verbose_logging": True}).__enter__().close()
    assert file.read_text().count('"UNLOCK"') == 2
    place.refused("audit_log_enabled", logging={"log_encryption_operations": True})


@effect("monitoring.metrics_enabled", "monitoring.metrics_path")
def _(place: Place) -> None:
    with place.open():
        assert str(place.path) not in metrics.render()
    with place.open(monitoring={"metrics_enabled": True}):
        assert str(place.path) in metrics.render()
    code = (
        "c = heliosvfs.connect(path, config={'encryption': {'key_source': {'File': key}},"
        " 'monitoring': {'metrics_enabled': True, 'metrics_path': path + '.prom'}})\n"
        "c.execute('CREATE TABLE t(x)')\n"
    )
    done = place.run(code)
    assert not done.returncode, done.stderr
    assert "heliosvfs_pages_sealed_total" in Path(f"{place.path}.prom").read_text()


# -- [compliance] ----------------------------------------------------------------------------------------------------------


@effect(
    "compliance.preset",
    "compliance.framework",
    "compliance.regulatory_standard",
    "compliance.pci_dss_mode",
    "compliance.fda_21_cfr_part_11",
)
def _(place: Place) -> None:
    for option, value, name in (
        ("preset", "hipaa", "hipaa"),
        ("preset", ["soc2", "gdpr"], "soc2"),
        ("framework", "IEC_62443", "iec_62443"),
        ("regulatory_standard", "FDA_21_CFR_Part_11", "fda_21_cfr_part_11"),
        ("pci_dss_mode", True, "pci_dss"),
        ("fda_21_cfr_part_11", True, "fda_21_cfr_part_11"),
    ):
        config = Config.from_dict(place.config(compliance={option: value}))
        assert name in config.origins.presets
        assert config.audit.enabled
        place.refused("audit.log_dml.*asks for", compliance={option: value}, audit={"log_dml": False})
    with place.open(compliance={"preset": "hipaa"}) as connection:
        assert connection.get_storage_info()["presets"] == ["hipaa"]


@effect("compliance.require_electronic_signatures", "compliance.signed_tables")
def _(place: Place) -> None:
    with place.open() as connection:
        connection.execute("CREATE TABLE batch(x)")
    with pytest.warns(OptionNotInEffectWarning, match="signed_tables"):
        place.open(compliance={"require_electronic_signatures": True}).__enter__().close()
    with place.open(compliance={"require_electronic_signatures": True, "signed_tables": ["batch"]}) as connection:
        with pytest.raises(AccessDeniedError, match="signed"):
            connection.execute("INSERT INTO batch VALUES(1)")
        assert "ACCESS DENIED" in operations(connection)
    place.refused("signature", compliance={"require_electronic_signatures": True}, audit={"enabled": False})


@effect("compliance.audit_trail_lockdown")
def _(place: Place) -> None:
    with place.open(compliance={"audit_trail_lockdown": True}) as connection:
        assert connection.auditor.policy.lockdown
    place.refused("audit_trail_lockdown", compliance={"audit_trail_lockdown": True}, audit={"enabled": False})


@effect("compliance.log_card_data_access")
def _(place: Place) -> None:
    with place.open(compliance={"log_card_data_access": True}) as connection:
        connection.execute("SELECT 1").fetchall()
        assert "SELECT" in operations(connection)
    place.refused("log_card_data_access", compliance={"log_card_data_access": True}, audit={"log_select": False})


@effect("compliance.prohibit_plaintext_card")
def _(place: Place) -> None:
    with place.open(compliance={"prohibit_plaintext_card": True}) as connection:
        connection.execute("CREATE TABLE sale(card)")
        with pytest.raises(AccessDeniedError, match="card number"):
            connection.execute("INSERT INTO sale VALUES(?)", ("4111 1111 1111 1111",))
        assert not any("4111" in str(row) for row in log_of(connection))
    place.refused("prohibit_plaintext_card", compliance={"prohibit_plaintext_card": True}, audit={"enabled": False})


# -- [gdpr] ----------------------------------------------------------------------------------------------------------------


@effect("gdpr.data_residency")
def _(place: Place) -> None:
    with place.open(gdpr={"data_residency": "EU"}) as connection:
        assert connection.get_storage_info()["data_residency"] == "EU"


PERSONAL = [{"table": "person", "subject_column": "id", "columns": ["name"], "on_erasure": "anonymise"}]


def _people(place: Place, name: str, **gdpr: Any) -> EmbeddedDatabase:
    config = place.config(audit={"enabled": True, "log_select": True}, gdpr=gdpr)
    database = EmbeddedDatabase.open(place.folder / f"{name}.db", config)
    database.execute("CREATE TABLE person(id INTEGER PRIMARY KEY, name, seen)")
    database.execute("INSERT INTO person VALUES(1, 'Ada', '2001-01-01'), (2, 'Bob', '2999-01-01')")
    return database


@effect(
    "gdpr.personal_data",
    "gdpr.enable_right_to_access",
    "gdpr.enable_right_to_erasure",
    "gdpr.anonymization_enabled",
    "gdpr.enable_consent_tracking",
)
def _(place: Place) -> None:
    rights: dict[str, Callable[[EmbeddedDatabase], Any]] = {
        "enable_right_to_access": lambda database: database.export_subject(1)["tables"]["person"][0]["name"] == "Ada",
        "enable_right_to_erasure": lambda database: database.erase_subject(1, reason="r").anonymised == {"person": 1},
        "anonymization_enabled": lambda database: database.anonymise_subject(1, reason="r").anonymised == {"person": 1},
        "enable_consent_tracking": lambda database: database.record_consent(1, "newsletter", given=True).given,
    }
    for option, use in rights.items():
        with _people(place, option, personal_data=PERSONAL, **{option: True}) as database:
            assert use(database)
        with (
            _people(place, f"{option}-off", personal_data=PERSONAL) as database,
            pytest.raises(PolicyViolationError, match=option),
        ):
            use(database)
    place.refused("log_select", gdpr={"enable_right_to_access": True}, audit={"enabled": True, "log_select": False})


@effect("gdpr.expiring")
def _(place: Place) -> None:
    expiring = [{"table": "person", "time_column": "seen"}]
    with _people(place, "expiring", expiring=expiring, data_retention_days=365) as database:
        assert [one.rows for one in database.expire(dry_run=True)] == [1]
        assert [one.rows for one in database.expire()] == [1]
        assert database.query("SELECT name FROM person") == [("Bob",)]


@effect("gdpr.audit_retention_days")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True}, gdpr={"audit_retention_days": 2555}) as connection:
        assert connection.auditor.policy.retention_days == 2555


# -- [security] ------------------------------------------------------------------------------------------------------------


@effect("security.access_control", "security.classification_level", "security.levels", "security.labels")
def _(place: Place) -> None:
    security = {
        "access_control": "mandatory",
        "levels": ["open", "closed"],
        "classification_level": "open",
        "labels": {"t": "closed"},
    }
    with place.open() as connection:
        connection.execute("CREATE TABLE t(x)")
    with place.open(security=security) as connection:
        with pytest.raises(apsw.SQLError, match="no such table: t"):
            connection.execute("SELECT x FROM t")
        with heliosvfs.session(clearance="closed"):
            assert connection.execute("SELECT x FROM t").fetchall() == []
    with place.open(security={**security, "classification_level": "closed"}) as connection, pytest.raises(apsw.AuthError):
        connection.execute("SELECT 1")
    place.refused("expected one of open, closed", security={**security, "labels": {"t": "secret"}})
    place.refused("mandatory", security={"labels": {"t": "SECRET"}})


@effect("security.audit_all_operations")
def _(place: Place) -> None:
    with place.open(security={"audit_all_operations": True}) as connection:
        connection.execute("BEGIN; SELECT 1; COMMIT").fetchall()
        assert {"BEGIN", "SELECT", "COMMIT"} <= operations(connection)
    place.refused("audit_all_operations", security={"audit_all_operations": True}, audit={"log_select": False})


# -- [backup], [iot], [edge], [offline], [container], [server] ----------------------------------------------------------------


@effect("backup.backup_enabled", "backup.backup_encryption", "backup.backup_retention_days", "backup.directory")
def _(place: Place) -> None:
    with closing(EmbeddedDatabase.open(place.path, place.config())) as database:
        database.execute("CREATE TABLE t(x)")
        with pytest.raises(PolicyViolationError, match="backup_enabled"):
            database.backup()
    backup = {"backup_enabled": True, "backup_retention_days": 30, "directory": str(place.folder / "kept")}
    with closing(EmbeddedDatabase.open(place.path, place.config(backup=backup))) as database:
        report = database.backup()
        assert Path(report.path).parent == place.folder / "kept"
        assert report.removed == ()
    with closing(EmbeddedDatabase.open(place.path, place.config(backup={"backup_enabled": True}))) as database:
        assert Path(database.backup().path).parent == place.folder / "backups"
    place.refused("backup_encryption", backup={"backup_encryption": False})
    place.refused("backup_enabled", backup={"backup_retention_days": 30})


@effect("iot.power_loss_protection", "iot.flash_optimization", "iot.edge_mode")
def _(place: Place) -> None:
    with place.open(iot={"power_loss_protection": True}) as connection:
        assert connection.pragma("synchronous") == 3
    with place.open(iot={"flash_optimization": True}) as connection:
        assert connection.pragma("wal_autocheckpoint") == 4000
        assert connection.pragma("temp_store") == 2
    with place.open(iot={"edge_mode": True}, audit={"enabled": True}) as connection:
        assert connection.pragma("cache_size") == -2048
        assert connection.auditor.policy.async_buffer_size == 50


@effect(
    "edge.offline_mode",
    "edge.sync_on_connect",
    "edge.sync_endpoint",
    "edge.compression_enabled",
    "server.host",
    "server.port",
    "gdpr.data_retention_days",
)
def _(place: Place) -> None:
    for section, option, value in (
        ("edge", "offline_mode", True),
        ("edge", "sync_on_connect", True),
        ("edge", "sync_endpoint", "https://example.org"),
        ("edge", "compression_enabled", True),
        ("server", "host", "0.0.0.0"),  # noqa: S104 - nothing listens
        ("server", "port", 8080),
        ("gdpr", "data_retention_days", 365),
    ):
        with pytest.warns(OptionNotInEffectWarning, match=f"{section}.{option}"):
            place.open(**{section: {option: value}}).__enter__().close()


@effect("offline.network_disabled", "offline.usb_transfer_only", "offline.external_sync_disabled")
def _(place: Place) -> None:
    vault = {"key_source": {"Vault": {"url": "http://127.0.0.1:1", "key": "k", "ciphertext": "vault:v1:x"}}}
    for option in ("network_disabled", "usb_transfer_only"):
        place.refused("no network", encryption=vault, offline={option: True})
        place.refused("offline", edge={"sync_endpoint": "https://example.org"}, offline={option: True})
    place.refused("offline", edge={"sync_on_connect": True}, offline={"external_sync_disabled": True})
    place.open(offline={"network_disabled": True}).__enter__().close()
    with pytest.raises(PolicyViolationError, match="network"):
        heliosvfs.KeyFromVault("http://127.0.0.1:1", "k", "vault:v1:x").secret()


@effect("container.enable_shutdown_on_signal", "container.graceful_shutdown_timeout_secs")
def _(place: Place) -> None:
    done = place.run(
        "import os, signal, time\n"
        "config = {'encryption': {'key_source': {'File': key}}, 'audit': {'enabled': True, 'log_select': True},"
        " 'container': {'enable_shutdown_on_signal': True, 'graceful_shutdown_timeout_secs': 20}}\n"
        "c = heliosvfs.connect(path, config=config)\n"
        "c.execute('CREATE TABLE t(x)'); c.execute('SELECT * FROM t').fetchall()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(30)\n"
    )
    assert done.returncode == -15, done.stderr
    assert not Path(f"{place.path}-wal").exists()
    with place.open() as connection:
        assert connection.execute("SELECT count(*) FROM __audit_log WHERE operation IN ('SELECT', 'CLOSE')").get == 2
    place.refused("graceful_shutdown_timeout_secs", container={"graceful_shutdown_timeout_secs": 0})


@effect("server.service_name")
def _(place: Place) -> None:
    with place.open(audit={"enabled": True}, server={"service_name": "user-service"}) as connection:
        connection.execute("CREATE TABLE t(x)")
        assert {row[4] for row in log_of(connection) if row[0] == "CREATE TABLE"} == {"user-service"}


# -- the walk --------------------------------------------------------------------------------------------------------------


def test_every_option_has_a_line_here() -> None:
    options = {option for option, _ in Config().options()}
    assert options == set(EFFECTS)


@pytest.mark.parametrize(
    "check", dict.fromkeys(EFFECTS.values()), ids=lambda check: next(o for o, c in EFFECTS.items() if c is check)
)
def test_an_option_does_what_it_says_or_is_refused(check: Callable[[Place], None], place: Place) -> None:
    check(place)
