"""The documents that the product was conceived from: their configurations load, and programs like theirs run.

The options and values are theirs; the programs are ours, with the calls that theirs make.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import heliosvfs
from heliosvfs import Config, Connection, EmbeddedDatabase, PolicyViolationError
from heliosvfs.config.applying import OptionNotInEffectWarning

CLINIC = """
[database]
path = "/var/lib/heliosdb/ehr.db"
memory_limit_mb = 512
enable_wal = true
page_size = 4096
[encryption]
enabled = true
algorithm = "Aes256Gcm"
key_source = { File = "/secure/ehr_encryption.key" }
rotation_interval_days = 90
[logging]
audit_log_enabled = true
audit_log_path = "/var/log/heliosdb/audit.log"
log_encryption_operations = true
"""
TILL = """
[database]
path = "/var/mobile/heliosdb/pos_transactions.db"
memory_limit_mb = 256
enable_wal = true
[encryption]
enabled = true
algorithm = "Aes256Gcm"
key_source = { File = "/secure/pos_encryption.key" }
rotation_interval_days = 90
[compliance]
pci_dss_mode = true
log_card_data_access = true
prohibit_plaintext_card = true
"""
TENANTS = """
[database]
path = "/data/saas_customers.db"
memory_limit_mb = 1024
enable_wal = true
[encryption]
enabled = true
algorithm = "Aes256Gcm"
key_source = { File = "/secrets/gdpr_encryption.key" }
rotation_interval_days = 90
[gdpr]
data_residency = "EU"
anonymization_enabled = true
audit_retention_days = 2555
[backup]
backup_enabled = true
backup_encryption = true
backup_retention_days = 365
"""
FIELD = """
[database]
path = "/opt/tactical_intel/classified.db"
memory_limit_mb = 2048
enable_wal = true
[encryption]
enabled = true
algorithm = "Aes256Gcm"
key_source = { File = "/secure/classified_key.bin" }
fips_mode = true
rotation_interval_days = 30
[security]
classification_level = "SECRET"
access_control = "mandatory"
audit_all_operations = true
[offline]
network_disabled = true
external_sync_disabled = true
usb_transfer_only = true
"""
GATEWAY = """
[database]
path = "/data/factory_production.db"
memory_limit_mb = 512
enable_wal = true
page_size = 1024
[encryption]
enabled = true
algorithm = "Aes256Gcm"
key_source = { File = "/secure/gateway_key.bin" }
rotation_interval_days = 365
[iot]
power_loss_protection = true
flash_optimization = true
edge_mode = true
[compliance]
framework = "IEC_62443"
fda_21_cfr_part_11 = true
"""
SAAS = """
[database]
path = "/var/lib/heliosdb/saas_app.db"
memory_limit_mb = 512
enable_wal = true
page_size = 4096
[audit]
enabled = true
log_ddl = true
log_dml = true
log_select = false
log_transactions = false
log_auth = true
retention_days = 90
async_buffer_size = 500
enable_checksums = true
max_query_length = 5000
[audit.capture_metadata]
capture_client_ip = true
capture_application_name = true
capture_database_name = true
capture_execution_time = true
capture_custom_fields = true
[monitoring]
metrics_enabled = true
verbose_logging = false
"""
SERVICE = """
[server]
host = "0.0.0.0"
port = 8080
service_name = "user-service"
[database]
path = "/var/lib/heliosdb/audit/user_service.db"
memory_limit_mb = 512
enable_wal = true
page_size = 4096
[audit]
enabled = true
log_ddl = true
log_dml = true
log_select = true
log_transactions = false
log_auth = true
retention_days = 2555
async_buffer_size = 500
enable_checksums = true
max_query_length = 10000
[audit.capture_metadata]
capture_client_ip = true
capture_application_name = true
capture_database_name = true
capture_execution_time = true
capture_custom_fields = true
[gdpr]
enable_right_to_access = true
enable_right_to_erasure = true
enable_consent_tracking = true
data_retention_days = 365
audit_retention_days = 2555
[container]
enable_shutdown_on_signal = true
graceful_shutdown_timeout_secs = 30
"""
DEVICE = """
[database]
path = "/var/industrial/control_system.db"
memory_limit_mb = 128
page_size = 512
enable_wal = true
cache_mb = 32
[audit]
enabled = true
log_ddl = true
log_dml = true
log_select = false
log_transactions = true
log_auth = true
retention_days = 2555
async_buffer_size = 50
enable_checksums = true
max_query_length = 2000
[audit.capture_metadata]
capture_client_ip = false
capture_application_name = true
capture_database_name = true
capture_execution_time = true
capture_custom_fields = true
[edge]
offline_mode = true
sync_on_connect = true
sync_endpoint = "https://scada.factory.local/audit-sync"
compression_enabled = true
[compliance]
regulatory_standard = "FDA_21_CFR_Part_11"
require_electronic_signatures = true
audit_trail_lockdown = true
"""
BLOCKS = {name: value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)}


@pytest.fixture
def block(request: pytest.FixtureRequest, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A block as a file; what it names outside is brought here."""
    text = BLOCKS[request.param].replace("/var/log/heliosdb/", f"{tmp_path}/")
    for line in text.splitlines():
        if line.startswith("key_source"):
            text = text.replace(line, f'key_source = {{ File = "{key_file}" }}')
    text = "\n".join(
        line for line in text.splitlines() if not line.startswith(("memory_limit_mb", "enable_shutdown"))
    )  # of the whole process
    monkeypatch.setenv("HELIOSVFS_KEY_FILE", str(key_file))
    (tmp_path / "heliosdb.toml").write_text(text)
    return tmp_path / "heliosdb.toml"


def test_there_are_eight() -> None:
    assert len(BLOCKS) == 8


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_loads_as_it_stands(name: str, tmp_path: Path) -> None:
    (tmp_path / "heliosdb.toml").write_text(BLOCKS[name])
    config = Config.from_file(tmp_path / "heliosdb.toml")
    assert config.encryption.enabled
    assert config.database.enable_wal


@pytest.mark.parametrize("block", BLOCKS, indirect=True)
def test_a_block_opens_a_database(block: Path, tmp_path: Path) -> None:
    config = Config.from_file(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptionNotInEffectWarning)
        if config.encryption.fips_mode and not heliosvfs.fips.status().validated_modules:
            with pytest.raises(PolicyViolationError, match="FIPS"):
                Connection.open_with_config(tmp_path / "app.db", config)
            return
        connection = Connection.open_with_config(tmp_path / "app.db", config)
    assert connection.get_storage_info()["encryption_enabled"]
    assert connection.pragma("page_size") == config.database.page_size
    assert (connection.get_storage_info()["audit_enabled"]) == config.audit.enabled
    connection.close()


class Records:
    """Health records, as the first document's program keeps them."""

    def __init__(self, file: Path, path: Path) -> None:
        self.config = Config.from_file(file)
        assert self.config.encryption.enabled
        self.connection = Connection.open_with_config(str(path), self.config)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS patients(patient_id INTEGER PRIMARY KEY AUTOINCREMENT, mrn TEXT UNIQUE, name TEXT)"
        )
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS encounters(encounter_id INTEGER PRIMARY KEY, patient_id REFERENCES patients, codes TEXT)"
        )

    def admit(self, mrn: str, name: str) -> int:
        cursor = self.connection.cursor()
        cursor.execute("INSERT INTO patients(mrn, name) VALUES(?, ?)", (mrn, name))
        return cursor.lastrowid

    def see(self, patient: int, codes: list[str]) -> int:
        cursor = self.connection.cursor()
        cursor.execute("INSERT INTO encounters(patient_id, codes) VALUES(?, ?)", (patient, json.dumps(codes)))
        return cursor.lastrowid

    def find(self, mrn: str) -> Any:
        cursor = self.connection.cursor()
        cursor.execute("SELECT patient_id, name FROM patients WHERE mrn = ?", (mrn,))
        return cursor.fetchone()

    def history(self, patient: int) -> list[Any]:
        cursor = self.connection.cursor()
        cursor.execute("SELECT codes FROM encounters WHERE patient_id = ?", (patient,))
        return [json.loads(codes) for (codes,) in cursor.fetchall()]


@pytest.mark.parametrize("block", ["CLINIC", "SERVICE"], indirect=True)
@pytest.mark.filterwarnings("ignore::heliosvfs.config.applying.OptionNotInEffectWarning")
def test_the_clinic_runs(block: Path, tmp_path: Path) -> None:
    records = Records(block, tmp_path / "ehr.db")
    patient = records.admit("MRN1", "Jane")
    assert patient == 1
    assert records.see(patient, ["Z00.00"]) == 1
    assert records.find("MRN1") == (1, "Jane")
    assert records.find("MRN2") is None
    assert records.history(patient) == [["Z00.00"]]
    info = records.connection.get_storage_info()
    assert info.get("encryption_enabled", False) is True
    assert "AES-256-GCM" in info.get("encryption_algorithm", "")
    records.connection.close()


def test_the_patient_monitor_runs(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSVFS_KEY_FILE", str(key_file))
    names = ("client_ip", "application_name", "database_name", "execution_time", "custom_fields")
    audit = {
        "enabled": True,
        "log_ddl": True,
        "log_dml": True,
        "log_select": True,
        "log_auth": True,
        "retention_days": 2555,
        "enable_checksums": True,
        "async_buffer_size": 100,
        "max_query_length": 10000,
        "capture_metadata": {f"capture_{name}": True for name in names},
    }
    database = EmbeddedDatabase.open(
        path=str(tmp_path / "health.db"), config={"cache_mb": 16, "enable_wal": True, "audit": audit}
    )
    database.execute("CREATE TABLE IF NOT EXISTS vital(id INTEGER PRIMARY KEY AUTOINCREMENT, patient TEXT NOT NULL, value REAL)")
    result = database.execute("INSERT INTO vital(patient, value) VALUES(?, ?) RETURNING id", ("P12345", 72.0))
    assert result[0][0] == 1
    assert database.query("SELECT value FROM vital WHERE patient = ?", ("P12345",)) == [(72.0,)]
    assert len(database.execute("UPDATE vital SET value = 73 WHERE patient = ?", ("P12345",))) > 0
    assert len(database.execute("UPDATE vital SET value = 73 WHERE patient = ?", ("nobody",))) == 0
    events = database.query(
        "SELECT id, timestamp, user, operation, target, query, affected_rows, success, error, checksum FROM __audit_log "
        "WHERE query LIKE ? AND timestamp >= ? ORDER BY timestamp DESC",
        ("%P12345%", "2024-01-01T00:00:00Z"),
    )
    assert [event[3] for event in events] == ["UPDATE", "SELECT", "INSERT"]
    assert [event[6] for event in events] == [1, 1, 1]
    assert all(len(json.loads(json.dumps(event))[9]) == 64 for event in events)  # checksums fit for JSON, as its report needs
    assert len(database.execute("DELETE FROM vital WHERE patient = ?", ("P12345",))) == 1
    database.close()


def test_a_result_is_its_rows_or_one_for_each_change(tmp_path: Path, key_file: Path) -> None:
    with EmbeddedDatabase.open(tmp_path / "a.db", {"encryption": {"key_source": {"File": str(key_file)}}}) as database:
        assert len(database.execute("CREATE TABLE t(x)")) == 0
        changed = database.execute("INSERT INTO t VALUES(1), (2), (3)")
        assert len(changed) == 3
        assert list(changed) == [(), (), ()]
        assert changed[-1] == ()
        assert database.execute("SELECT x FROM t ORDER BY x")[1:] == [(2,), (3,)]
        with pytest.raises(heliosvfs.UsageError, match="only reads"):
            database.query("DELETE FROM t")
        assert database.query("SELECT count(*) FROM t") == [(3,)]


def test_options_of_the_database_may_stand_beside_the_sections_but_not_twice(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.ConfigError, match="page_size: expected it once"):
        EmbeddedDatabase.open(tmp_path / "a.db", {"page_size": 512, "database": {"page_size": 1024}})
