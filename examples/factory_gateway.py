"""A gateway in a factory that loses power: committed readings are on disk, recipes are signed, changes have their images.

python examples/factory_gateway.py [FOLDER]
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import heliosvfs
from heliosvfs.audit import AccessDeniedError
from heliosvfs.compliance import signatures, signers

CONFIG = {
    "database": {"page_size": 1024},
    "iot": {"power_loss_protection": True, "flash_optimization": True, "edge_mode": True},
    "compliance": {
        "framework": "IEC_62443",
        "fda_21_cfr_part_11": True,
        "require_electronic_signatures": True,
        "signed_tables": ["recipe"],
    },
}
PASSPHRASE = "known to the engineer alone"  # noqa: S105 - typed in, where this is not an example


def main(folder: Path) -> None:
    """Record readings, change a recipe under signature, and lose power."""
    key = secrets.token_bytes(32)
    with closing(heliosvfs.connect(folder / "gateway.db", key=key, audit="fda_21_cfr_part_11")) as connection:
        connection.execute(
            "CREATE TABLE recipe(id INTEGER PRIMARY KEY, celsius REAL); CREATE TABLE reading(sensor, value)"
        ).fetchall()
        signers.enrol(connection, "e.noether", name="Emmy Noether", passphrase=PASSPHRASE)

    with closing(heliosvfs.connect(folder / "gateway.db", key=key, config=CONFIG)) as connection:
        with connection:
            connection.executemany("INSERT INTO reading VALUES(?, ?)", ((f"t{n % 4}", 20 + n / 10) for n in range(200)))
        try:
            connection.execute("INSERT INTO recipe(celsius) VALUES(180)")
        except AccessDeniedError as error:
            print(f"Refused: {error}")
        with signatures.signing(connection, signer="e.noether", passphrase=PASSPHRASE, meaning="approved for line 3"):
            connection.execute("INSERT INTO recipe(celsius) VALUES(180)")
        for suffix in ("", "-wal"):  # what is on disk now is what a power cut leaves
            shutil.copy(f"{folder / 'gateway.db'}{suffix}", f"{folder / 'after.db'}{suffix}")

    with closing(heliosvfs.connect(folder / "after.db", key=key, config=CONFIG)) as connection:
        print("After the power cut:", connection.execute("SELECT count(*) FROM reading").get, "readings")
        report = signatures.verify_signatures(connection)
        for signature in report.signatures:
            print(str(signature).partition(" on ")[0], "-", signature.meaning)
        print("Everything signed that has to be:", report.ok)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
