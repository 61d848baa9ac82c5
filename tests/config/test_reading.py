"""What is wrong with a configuration is said: file, option, what was expected, and the nearest name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import heliosvfs
from heliosvfs import Config, ConfigError
from heliosvfs.config import Audit, Compliance, Database, Encryption, KeySourceOption
from heliosvfs.config.reading import parsed

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"databse": {}}, "databse: unknown section; did you mean 'database'?"),
    ({"database": {"page_sise": 4096}}, "database.page_sise: unknown option; did you mean 'page_size'?"),
    (
        {"audit": {"capture_metadata": {"client_ip": True}}},
        "audit.capture_metadata.client_ip: unknown option; did you mean 'capture_client_ip'?",
    ),
    ({"encryption": {"key_source": {"Fil": "x"}}}, "encryption.key_source.Fil: unknown option; did you mean 'File'?"),
    (
        {"encryption": {"key_source": {"File": {"pth": "x"}}}},
        "encryption.key_source.File.pth: unknown option; did you mean 'path'?",
    ),
    ({"encryption": {"key_source": {}}}, "encryption.key_source: expected exactly one of File, Environment"),
    ({"encryption": {"key_source": {"File": "a", "Environment": "B"}}}, "encryption.key_source: expected exactly one of"),
    ({"encryption": {"key_source": "00" * 32}}, "encryption.key_source: expected table, got str"),
    ({"encryption": {"key_source": {"Passphrase": "geheim"}}}, "encryption.key_source.Passphrase: expected one of 'prompt'"),
    ({"encryption": {"algorithm": "DES"}}, 'encryption.algorithm: expected "Aes256Gcm"'),
    ({"encryption": 3}, "encryption: expected table, got int"),
    ({"encryption": {"rotation_interval_days": 0}}, "encryption.rotation_interval_days: expected int >= 1"),
    ({"database": {"page_size": "4096"}}, "database.page_size: expected int, got str"),
    ({"database": {"page_size": 4095}}, "database.page_size: expected a power of two from 512 to 65536"),
    ({"database": {"path": 5}}, "database.path: expected str, got int"),
    ({"audit": {"enabled": "yes"}}, "audit.enabled: expected bool, got str"),
    ({"audit": {"read_durability": "bufered"}}, "audit.read_durability: expected one of 'buffered', 'strict'"),
    ({"audit": {"include_tables": "patients"}}, "audit.include_tables: expected list, got str"),
    ({"compliance": {"preset": "hippa"}}, "compliance.preset: unknown preset; did you mean 'hipaa'?"),
    ({"compliance": {"framework": "COBIT"}}, "compliance.framework: unknown preset; there are soc2"),
    ({"gdpr": {"personal_data": [{"tabel": "x"}]}}, "gdpr.personal_data[0].tabel: unknown option; did you mean 'table'?"),
    ({"gdpr": {"personal_data": [{"table": "x"}]}}, "gdpr.personal_data[0]: expected either subject_column or via"),
    ({"server": {"port": 70000}}, "server.port: expected int <= 65535"),
    ({"origins": {}}, "origins: unknown section"),
]


@pytest.mark.parametrize(("document", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_is_wrong_is_said(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(document, source="clinic.toml")
    assert str(caught.value).startswith(f"clinic.toml: {said}")


def test_no_value_of_a_key_is_shown() -> None:
    for source in ({"File": ["geheim"]}, "geheim", {"Command": "geheim"}, {"Environment": 5}, {"Raw": "geheim"}):
        with pytest.raises(ConfigError) as caught:
            Config.from_dict({"encryption": {"key_source": source}})
        assert "geheim" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    cases = {
        "missing.toml": "can't be read: No such file",
        "folder.toml": "can't be read: Is a directory",
        "latin.toml": "expected UTF-8, found another byte at offset 7",
        "broken.toml": r"expected TOML .* \(at line 2, column 8\)",
        "huge.toml": "found more than 1048576 bytes",
        "nul\0.toml": "can't be read",
    }
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b"# caf\xc3\xa9\n"[:-1] + b"\xe9\n")
    (tmp_path / "broken.toml").write_text("[database]\npath = \n")
    (tmp_path / "huge.toml").write_text("#" * 1048577)
    for name, said in cases.items():
        with pytest.raises(ConfigError, match=said) as caught:
            Config.from_file(tmp_path / name)
        assert name.split("\0")[0] in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[database]\ncache_mb = 3\n")
    assert Config.from_file(tmp_path / "bom.toml").database.cache_mb == 3


def test_a_configuration_made_in_python_is_the_same_as_one_that_was_read() -> None:
    made = Config(
        database=Database(path="x.db"), audit=Audit(enabled=True), encryption=Encryption(key_source=KeySourceOption(file="k"))
    )
    read = Config.from_dict(
        {"database": {"path": "x.db"}, "audit": {"enabled": True}, "encryption": {"key_source": {"File": "k"}}}
    )
    assert made.options() == read.options()


def test_a_configuration_made_in_python_is_completed_when_it_is_used() -> None:
    made = Config(compliance=Compliance(preset="hipaa")).completed()
    assert made.audit.log_select
    assert made.audit.retention_days == 2555
    with pytest.raises(ConfigError, match="2192"):
        Config(compliance=Compliance(preset="hipaa"), audit=Audit(retention_days=365)).completed()


def test_a_configuration_cannot_be_changed() -> None:
    config = Config.from_dict({})
    with pytest.raises(AttributeError):
        config.audit.enabled = True  # type: ignore[misc]


def test_what_an_option_comes_from_is_known() -> None:
    config = Config.from_dict({"compliance": {"preset": "hipaa"}, "database": {"cache_mb": 3}}, source="clinic.toml")
    assert config.origin("database.cache_mb") == "clinic.toml"
    assert config.origin("audit.log_select") == "preset hipaa"
    assert config.origin("database.page_size") == "default"
    assert (
        Config.from_dict({"security": {"audit_all_operations": True}}).origin("audit.log_select")
        == "security.audit_all_operations"
    )


def test_an_argument_goes_before_the_configuration_but_never_below_its_preset(tmp_path: Path, key_file: Path) -> None:
    config = {
        "compliance": {"preset": "hipaa"},
        "database": {"page_size": 1024},
        "encryption": {"key_source": {"File": str(key_file)}},
    }
    with heliosvfs.connect(tmp_path / "a.db", config=config, page_size=8192) as connection:
        assert connection.pragma("page_size") == 8192
    connection.close()
    key = os.urandom(32)
    heliosvfs.connect(tmp_path / "b.db", config=config, key=key).close()
    heliosvfs.connect(tmp_path / "b.db", key=key, create=False).close()
    with pytest.raises(ConfigError, match=r"connect\(audit=...\): log_select: expected true under the preset hipaa"):
        heliosvfs.connect(tmp_path / "c.db", config=config, audit=heliosvfs.audit.Policy())
    assert not (tmp_path / "c.db").exists()


def test_without_a_key_there_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(heliosvfs.KeyUnavailableError, match="HELIOSVFS_KEY_FILE"):
        heliosvfs.connect(tmp_path / "a.db", config={})
    assert list(tmp_path.iterdir()) == []


def test_a_plain_configuration_does_not_open_an_encrypted_file(tmp_path: Path) -> None:
    heliosvfs.connect(tmp_path / "a.db", key=os.urandom(32)).close()
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(heliosvfs.FormatError, match="no plain SQLite database"):
        heliosvfs.connect(tmp_path / "a.db", config={"encryption": {"enabled": False}})
    assert (tmp_path / "a.db").read_bytes() == before


# -- anything at all -------------------------------------------------------------------------------------------------------

NAMES = sorted(
    {name for option, _ in Config().options() for name in option.split(".")}
    | {"File", "Environment", "Command", "table", "via", "days"}
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["hipaa", "gdpr", "prompt", "strict", "SECRET", "mandatory"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
SECTIONS = sorted({option.partition(".")[0] for option, _ in Config().options()})
OPTIONS = [option.split(".") for option, _ in Config().options()]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly real options with any values."""
    document: dict[str, Any] = {}
    for names in draw(st.lists(st.sampled_from(OPTIONS), max_size=6)):
        place = document
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = draw(VALUES)
    if draw(st.booleans()):
        document[draw(st.sampled_from(SECTIONS) | st.text(max_size=6))] = draw(VALUES)
    return document


@settings(max_examples=600, deadline=None)
@given(documents() | VALUES)
def test_any_document_is_a_configuration_or_a_config_error(document: Any) -> None:
    try:
        config = Config.from_dict(document)
    except ConfigError as error:
        assert str(error).startswith("configuration: ")  # noqa: PT017 - either is right
    else:
        assert config.completed() is config


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
    | st.builds("[{}]\n{} = {}".format, st.sampled_from(SECTIONS), st.sampled_from(NAMES), st.text(max_size=12))
)
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    try:
        Config.from_dict(parsed(text, "x.toml"), source="x.toml")
    except ConfigError as error:
        assert str(error).startswith("x.toml: ")  # noqa: PT017 - either is right
