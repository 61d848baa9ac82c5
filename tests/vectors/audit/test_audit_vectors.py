"""The tamper corpus: each attack, and the verdict that is due. A naive verifier agrees on what holds without a checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from heliosaudit.checkpoints import Checkpoint, CheckpointError, VerifyingKey
from heliosaudit.verifications import Report, verify

HERE = Path(__file__).parent
VERDICTS = json.loads((HERE / "verdicts.json").read_text())
KEY = VerifyingKey.parse(VERDICTS["public_key"])


def judged(name: str, folder: Path, note: str | None = None) -> Report:
    shutil.copy(HERE / f"{name}.db", folder / "db")  # SQLite may write to what it opens
    checkpoint = None if note is None else Checkpoint.parse((HERE / f"{note}.note").read_text(), KEY)
    with closing(apsw.Connection(str(folder / "db"))) as connection:
        return verify(connection, checkpoint=checkpoint)


def holds(name: str, folder: Path) -> bool:
    """Follow the chain in ten lines that share nothing with the product."""
    shutil.copy(HERE / f"{name}.db", folder / "naive")
    previous = bytes(32)
    with closing(apsw.Connection(str(folder / "naive"))) as connection:
        for number, (found, record, checksum) in enumerate(
            connection.execute("SELECT id, record, checksum FROM __audit_log ORDER BY id"), 1
        ):
            previous = hashlib.sha256(previous + number.to_bytes(8, "big") + record.encode()).digest()
            if found != number or checksum != previous or (number == 1 and '"GENESIS"' not in record):
                return False
    return True


@pytest.mark.parametrize("attack", VERDICTS["attacks"])
def test_each_attack_gets_its_verdict(attack: str, tmp_path: Path) -> None:
    due = VERDICTS["attacks"][attack]
    alone, anchored = judged(attack, tmp_path), judged(attack, tmp_path, "sound")
    assert alone.ok == (due["alone"] is None) == holds(attack, tmp_path)
    if alone.first_broken is not None:
        assert [alone.first_broken.id, alone.first_broken.kind] == due["alone"]
    assert anchored.first_broken is not None
    assert [anchored.first_broken.id, anchored.first_broken.kind] == due["with_checkpoint"]


def test_the_sound_log_is_verified(tmp_path: Path) -> None:
    assert judged("sound", tmp_path, "sound").verdict == "verified"
    assert holds("sound", tmp_path)


def test_a_checkpoint_of_another_key_vouches_for_nothing() -> None:
    with pytest.raises(CheckpointError, match="not signed by"):
        Checkpoint.parse((HERE / "key-swapped.note").read_text(), KEY)


def test_a_checkpoint_that_was_moved_from_another_log_is_known(tmp_path: Path) -> None:
    report = judged("sound", tmp_path, "checkpoint-moved")
    assert report.first_broken is not None
    assert report.first_broken.kind == "transplanted"
