"""rotate, backup, restore, recovery keys and fips on the command line, as real processes."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

import heliosvfs
from heliosvfs.recovery_keys import parse
from tests.cli.test_command_line import run
from tests.keylife.examining import KEY, copies, database, epochs_on_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    database(tmp_path / "clinic.db").close()
    return tmp_path / "clinic.db"


def count(path: Path, key: heliosvfs.keyring.Key = KEY) -> int:
    with closing(heliosvfs.connect(path, key=key, create=False)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").get)


def test_rotate_says_what_it_did(path: Path, key_file: Path) -> None:
    rows = count(path)
    done = run("rotate", path, "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert "epoch 2" in done.stdout
    assert "removed: the keys of epoch 1" in done.stdout
    assert epochs_on_disk(path) == {2}
    assert count(path) == rows
    report = json.loads(run("rotate", path, "--key-file", key_file, "--json").stdout)
    assert (report["epoch"], report["removed_epochs"]) == (3, [2])


def test_rotate_master_keeps_the_keys_that_are_named(path: Path, key_file: Path, tmp_path: Path) -> None:
    words, spare = tmp_path / "words", tmp_path / "spare"
    words.write_text("three words more\n")
    spare.write_bytes(b"2" * 32)
    for file in (words, spare):
        file.chmod(0o600)
    text = json.loads(run("key", "recovery", path, "--key-file", key_file, "--json").stdout)["recovery_key"]
    added = run("key", "add", path, "--label", "words", "--key-file", key_file, "--new-key-file", words, "--new-passphrase")
    assert added.returncode == 0, added.stderr
    kept = ["--keep-passphrase-file", words, "--keep-recovery-key"]
    done = run("rotate", path, "--master", *kept, "--key-file", key_file, stdin=text.lower() + "\n")
    assert done.returncode == 0, done.stderr
    assert "open it no longer: spare" in done.stdout
    assert count(path, "three words more") == count(path, parse(text)) == count(path)
    with pytest.raises(heliosvfs.WrongKeyError):
        count(path, b"2" * 32)


def test_rotate_due_does_what_is_due_in_a_folder_and_reports_failures(path: Path, key_file: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "second.db")
    heliosvfs.connect(tmp_path / "foreign.db", key=b"f" * 32).close()
    done = run("rotate", "--due", tmp_path, "--interval-days", "0.5", "--key-file", key_file, "--json")
    outcomes = {Path(entry["path"]).name: entry["outcome"] for entry in json.loads(done.stdout)["databases"]}
    assert outcomes.pop("foreign.db").endswith("opens none of the 1 key slots it could open")
    assert outcomes == {"clinic.db": "not due", "second.db": "not due"}
    assert done.returncode == 1
    (tmp_path / "foreign.db").unlink()
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        created = copies(path)[0].epoch.created
        assert connection.get_storage_info()["key_epoch_created"] == created
    done = run("rotate", "--due", tmp_path, "--interval-days", "0.001", "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert "second.db" in done.stdout
    assert run("rotate", "--due", tmp_path / "nowhere", "--key-file", key_file).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name one database"),
        (["FILE", "--due", "DIR"], "name one database"),
        (["FILE", "--keep-key-file", "KEY"], "--master"),
        (["--due", "DIR", "--master"], "one database at a time"),
    ],
)
def test_rotate_used_wrongly_changes_nothing(path: Path, key_file: Path, arguments: list[str], says: str) -> None:
    names = {"FILE": str(path), "DIR": str(path.parent), "KEY": str(key_file)}
    done = run("rotate", *(names.get(argument, argument) for argument in arguments), "--key-file", key_file)
    assert done.returncode == 2
    assert says in done.stderr
    assert copies(path)[0].epoch.id == 1


def test_a_backup_is_made_listed_and_restored(path: Path, key_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    done = run("backup", path, folder, "--retention-days", "30", "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert "every row compared" in done.stdout
    listed = json.loads(run("backups", folder, "--json").stdout)["backups"]
    assert [item["of"] for item in listed] == [copies(path)[0].uuid]
    restored = run("restore", listed[0]["path"], tmp_path / "new.db", "--of", listed[0]["of"], "--key-file", key_file)
    assert restored.returncode == 0, restored.stderr
    assert count(tmp_path / "new.db") == count(path)
    again = run("restore", listed[0]["path"], tmp_path / "new.db", "--key-file", key_file)
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr
    wrong = run("restore", listed[0]["path"], tmp_path / "other.db", "--of", "00" * 16, "--key-file", key_file)
    assert wrong.returncode == 2
    assert not (tmp_path / "other.db").exists()


def test_a_backup_under_another_key_and_a_damaged_one(path: Path, key_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-key"
    other.write_bytes(b"o" * 32)
    other.chmod(0o600)
    done = run("backup", path, tmp_path / "copy.db", "--key-file", key_file, "--new-key-file", other, "--json")
    assert json.loads(done.stdout)["compared"]
    assert count(tmp_path / "copy.db", b"o" * 32) == count(path)
    with (tmp_path / "copy.db").open("r+b") as file:
        file.seek(32768 + 50 * 1024 + 100)
        file.write(b"\xaa" * 8)
    restored = run("restore", tmp_path / "copy.db", tmp_path / "new.db", "--key-file", other)
    assert restored.returncode == 1
    assert "was not restored" in restored.stderr
    assert "Traceback" not in restored.stderr
    assert run("backup", path, path, "--key-file", key_file).returncode == 2


def test_a_recovery_key_is_printed_once_and_brings_a_lost_database_back(path: Path, key_file: Path, tmp_path: Path) -> None:
    shown = run("key", "recovery", path, "--key-file", key_file)
    assert shown.returncode == 0, shown.stderr
    text = "".join(line.strip() for line in shown.stdout.splitlines() if line.startswith("    "))
    assert text not in run("key", "list", path, "--key-file", key_file).stdout
    new = tmp_path / "new-key"
    new.write_bytes(b"n" * 32)
    new.chmod(0o600)
    mistyped = text[:3] + ("2" if text[3] != "2" else "3") + text[4:]
    failed = run("key", "recover", path, "--label", "new", "--new-key-file", new, stdin=mistyped)
    assert failed.returncode == 2
    assert "mistyped in group 1 of 8" in failed.stderr
    done = run("key", "recover", path, "--label", "new", "--new-key-file", new, stdin=text.replace("-", " ").lower())
    assert done.returncode == 0, done.stderr
    assert count(path, b"n" * 32) == count(path)


def test_revoking_says_what_it_does_not_do(path: Path, key_file: Path) -> None:
    done = run("key", "revoke", path, "--label", "spare", "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    assert "rotate --master" in done.stdout
    last = run("key", "revoke", path, "--label", "first", "--key-file", key_file)
    assert last.returncode == 2
    assert "last key slot" in last.stderr


def test_fips_claims_nothing_that_is_not_so() -> None:
    done = run("fips", "--json")
    facts = json.loads(done.stdout)
    assert facts["validated_modules"] == (facts["cipher_provider"] and facts["hash_provider"])
    assert done.returncode == (0 if facts["validated_modules"] else 1)
    assert "OpenSSL" in facts["cipher_module"]
