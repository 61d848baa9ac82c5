"""The commands about configurations, personal data and signatures, as a shell runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.config.presets import PRESETS

KEY = bytes(range(32))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "app.key"
    file.write_text(KEY.hex())
    file.chmod(0o600)
    return file


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith(("HELIOSVFS_", "HELIOSDB_"))}
    command = [sys.executable, "-m", "heliosvfs", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**names, "COLUMNS": "200", **(environment or {})}
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_what_init_writes_passes_its_check(tmp_path: Path, preset: str) -> None:
    file = tmp_path / "heliosdb.toml"
    assert run("config", "init", "--preset", preset, "--output", file).returncode == 0
    done = run("config", "check", file)
    assert done.returncode == 0, done.stderr
    assert PRESETS[preset].title in done.stdout
    assert run("config", "init", "--preset", preset, "--output", file).returncode == 2  # it is there already


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX limit")
def test_init_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "heliosdb.toml"
    command = [sys.executable, "-m", "heliosvfs", "config", "init", "--output", str(file)]
    limited = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", *command]  # no file may grow, as on a full disk
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"heliosvfs: {file} can't be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_configuration_that_cannot_be_used_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "heliosdb.toml").write_text('[compliance]\npreset = "hipaa"\n[audit]\nretention_days = 90\n')
    done = run("config", "check", tmp_path / "heliosdb.toml")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "audit.retention_days: expected at least 2192 days under the preset hipaa, which 164.316(b)(2)(i)" in done.stderr
    assert run("config", "check").returncode == 2
    assert run("config", "init", "--preset", "hippa").returncode == 2


def test_show_says_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "heliosdb.toml"
    file.write_text('[compliance]\npreset = "hipaa"\n[database]\ncache_mb = 3\n')
    done = run("config", "show", "--json", environment={"HELIOSDB_CONFIG": str(file), "HELIOSVFS_KEY": KEY.hex()})
    found = {one["option"]: (one["value"], one["from"]) for one in json.loads(done.stdout)["options"]}
    assert found["database.cache_mb"] == (3, str(file))
    assert found["audit.retention_days"] == (2555, "preset hipaa")
    assert found["database.page_size"] == (4096, "default")
    assert found["encryption.key_source"] == ({"Environment": "HELIOSVFS_KEY"}, "environment variable HELIOSVFS_KEY")
    assert KEY.hex() not in done.stdout


def test_check_names_what_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "heliosdb.toml").write_text('[edge]\nsync_endpoint = "https://example.org"\n[server]\nport = 80\n')
    done = run("config", "check", tmp_path / "heliosdb.toml", "--json")
    assert set(json.loads(done.stdout)["without_effect"]) == {"edge.sync_endpoint", "server.port"}


@pytest.mark.parametrize("source", ["file", "environment", "command"])
def test_the_demonstration_runs_from_a_configuration_alone(tmp_path: Path, key_file: Path, source: str) -> None:
    command = json.dumps([sys.executable, "-c", f"print(open({str(key_file)!r}).read(), end='')"])
    forms = {
        "file": f'{{ File = "{key_file}" }}',
        "environment": '{ Environment = "APP_KEY" }',
        "command": f"{{ Command = {command} }}",
    }
    file = tmp_path / "heliosdb.toml"
    file.write_text(
        f'[database]\npath = "/nowhere/app.db"\n[encryption]\nkey_source = {forms[source]}\n[compliance]\npreset = "hipaa"\n'
    )
    done = run("demo", "--config", file, environment={"APP_KEY": KEY.hex()} if source == "environment" else None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It is in none." in done.stdout
    assert "hipaa" in done.stdout
    assert "All of that held" in done.stdout


def test_the_demonstration_says_what_is_wrong_with_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "heliosdb.toml").write_text('[encryption]\nkey_source = { Environment = "NOT_SET" }\n')
    done = run("demo", "--config", tmp_path / "heliosdb.toml")
    assert done.returncode == 1
    assert "NOT_SET" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_shell_opens_what_a_configuration_names_the_key_of(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "heliosdb.toml").write_text(f'[encryption]\nkey_source = {{ File = "{key_file}" }}\n[audit]\nenabled = true\n')
    options = ("--create", "--config", tmp_path / "heliosdb.toml")
    done = run(
        "shell",
        tmp_path / "app.db",
        *options,
        "CREATE TABLE t(x); INSERT INTO t VALUES(7); SELECT x FROM t; SELECT count(*) > 2 FROM __audit_log",
    )
    assert done.stdout.split() == ["7", "1"], done.stderr


def test_personal_data_is_exported_erased_and_expired(tmp_path: Path, key_file: Path) -> None:
    file = tmp_path / "heliosdb.toml"
    file.write_text(
        f'[database]\npath = "{tmp_path / "app.db"}"\n[encryption]\nkey_source = {{ File = "{key_file}" }}\n'
        '[compliance]\npreset = "gdpr"\n'
        "[gdpr]\nenable_right_to_access = true\nenable_right_to_erasure = true\nenable_consent_tracking = true\n"
        '[[gdpr.personal_data]]\ntable = "person"\nsubject_column = "id"\n'
        '[[gdpr.expiring]]\ntable = "visit"\ntime_column = "at"\ndays = 30\n'
    )
    with closing(heliosvfs.connect(config=file)) as connection:
        connection.execute("CREATE TABLE person(id INTEGER PRIMARY KEY, name); CREATE TABLE visit(at)").fetchall()
        connection.execute("INSERT INTO person VALUES(?, ?), (?, ?)", (1, "Ada", 2, "Bob"))
        connection.execute("INSERT INTO visit VALUES('2001-01-01'), ('2999-01-01'), ('soon')")
    assert json.loads(run("gdpr", "export", "1", "--config", file).stdout)["tables"]["person"] == [{"id": 1, "name": "Ada"}]
    assert run("gdpr", "consent", "1", "newsletter", "--config", file).stdout == "Recorded as entry 1.\n"
    assert json.loads(run("gdpr", "consents", "1", "--config", file, "--json").stdout)["consents"][0]["given"] is True
    unanswered = run("gdpr", "erase", "1", "--config", file, "--reason", "request 17")
    assert (unanswered.returncode, "nobody answered" in unanswered.stderr) == (2, True)
    report = json.loads(run("gdpr", "erase", "1", "--config", file, "--reason", "request 17", "--yes", "--json").stdout)
    assert report["deleted"] == {"person": 1}
    assert report["audit_values"] > 0
    assert run("gdpr", "anonymise", "2", "--config", file, "--reason", "r", "--yes").returncode == 2
    assert json.loads(run("gdpr", "expire", "--config", file, "--dry-run", "--json").stdout)["expired"] == [
        {"table": "visit", "rows": 1, "unreadable": 1}
    ]
    assert run("gdpr", "expire", "--config", file).returncode == 0
    with closing(heliosvfs.connect(config=file)) as connection:
        assert connection.execute("SELECT name FROM person").get == "Bob"
        assert connection.execute("SELECT at FROM visit").get == ["2999-01-01", "soon"]


def test_signers_and_signatures(tmp_path: Path, key_file: Path) -> None:
    path = tmp_path / "app.db"
    with closing(heliosvfs.connect(path, key=KEY, audit="fda_21_cfr_part_11")) as connection:
        connection.execute("CREATE TABLE batch(state)")
    key = ("--key-file", key_file)
    secret = {"HELIOSVFS_NEW_SIGNER_PASSPHRASE": "a good passphrase"}
    done = run("signer", "add", path, "ada", "--name", "Ada Lovelace", *key, environment=secret)
    assert done.stdout.startswith("Ada Lovelace (ada) may sign"), done.stderr
    assert run("signer", "add", path, "ada", "--name", "Another", *key, environment=secret).returncode == 2
    assert run("signer", "add", path, "bob", "--name", "Bob", *key).returncode == 2  # there is no terminal to ask on
    code = (
        "import heliosvfs, sys; from heliosvfs.compliance.signatures import signing\n"
        f"c = heliosvfs.connect({str(path)!r}, key=heliosvfs.KeyFile({str(key_file)!r}), audit='fda_21_cfr_part_11')\n"
        "with signing(c, signer='ada', passphrase='a good passphrase', meaning='approved'):\n"
        " c.execute(\"INSERT INTO batch VALUES('x')\")\n"
        "c.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    done = run("signature", "verify", path, "--table", "batch", *key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ada Lovelace" in done.stdout
    assert json.loads(run("signature", "list", path, *key, "--json").stdout)["signatures"][0]["meaning"] == "approved"
    with closing(heliosvfs.connect(path, key=KEY, audit="fda_21_cfr_part_11")) as connection:
        connection.execute("INSERT INTO batch VALUES('unsigned')")
    done = run("signature", "verify", path, "--table", "batch", *key)
    assert done.returncode == 1
    assert "nobody signed" in done.stdout
    both = {"HELIOSVFS_SIGNER_PASSPHRASE": "a good passphrase", "HELIOSVFS_NEW_SIGNER_PASSPHRASE": "another passphrase"}
    assert run("signer", "passphrase", path, "ada", *key, environment=both).stdout == "Changed.\n"
    assert run("signer", "passphrase", path, "ada", *key, environment=both).returncode == 1
    assert run("signer", "revoke", path, "ada", "--reason", "left", *key).returncode == 0
    assert json.loads(run("signer", "list", path, *key, "--json").stdout)["signers"][0]["revoked"]


def test_signatures_need_an_audit_log(tmp_path: Path, key_file: Path) -> None:
    heliosvfs.connect(tmp_path / "plain.db", key=KEY).close()
    done = run("signer", "list", tmp_path / "plain.db", "--key-file", key_file)
    assert done.returncode == 2
    assert "no audit log" in done.stderr


def test_every_command_takes_its_key_from_a_configuration(tmp_path: Path, key_file: Path) -> None:
    path, file = tmp_path / "app.db", tmp_path / "heliosdb.toml"
    heliosvfs.connect(path, key=KEY).close()
    file.write_text(f'[encryption]\nkey_source = {{ File = "{key_file}" }}\n')
    assert run("check", path).returncode == 2  # nobody is there to ask
    assert run("--config", file, "check", path).returncode == 0
    assert run("check", path, environment={"HELIOSDB_CONFIG": str(file)}).returncode == 0
    assert run("--config", file, "key", "list", path, "--json").returncode == 0
    (tmp_path / "other.key").write_text("00" * 32)
    (tmp_path / "other.key").chmod(0o600)
    assert run("--config", file, "check", path, "--key-file", tmp_path / "other.key").returncode == 1  # an option goes before it
    (tmp_path / "bad.toml").write_text("[databse]\n")
    assert "did you mean 'database'" in run("--config", tmp_path / "bad.toml", "check", path).stderr
