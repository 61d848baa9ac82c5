"""A till that keeps the last four digits of a card and nothing more, under PCI DSS 4.0.1's settings.

python examples/point_of_sale.py [FOLDER]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import heliosvfs
from heliosvfs.audit import AccessDeniedError

CONFIG = """
[database]
path = "{folder}/till.db"
[encryption]
key_source = {{ File = "{folder}/till.key" }}
rotation_interval_days = 90
[compliance]
pci_dss_mode = true
"""


def main(folder: Path) -> None:
    """Sell two coffees, and try to keep a whole card number."""
    (folder / "till.key").touch(mode=0o600)
    (folder / "till.key").write_text(secrets.token_hex(32))
    (folder / "heliosdb.toml").write_text(CONFIG.format(folder=folder))

    with closing(heliosvfs.connect(config=folder / "heliosdb.toml")) as connection:
        connection.execute("CREATE TABLE sale(id INTEGER PRIMARY KEY, cents INTEGER, last4 TEXT, approval TEXT)")
        with heliosvfs.session(user="till-7", client_ip="10.1.0.7", cashier="mara"):
            sell = "INSERT INTO sale(cents, last4, approval) VALUES(?, ?, ?)"
            connection.execute(sell, (320, "1111", "A00417"))
            try:
                connection.execute(sell, (320, "4111 1111 1111 1111", "A00418"))
            except AccessDeniedError as error:
                print(f"Refused: {error}")
            connection.execute(sell, (320, "1111", "A00418"))

        print("Sales:", connection.execute("SELECT cents, last4, approval FROM sale").fetchall())
        for user, query in connection.execute("SELECT user, query FROM __audit_log WHERE operation = 'ACCESS DENIED'"):
            print(f"Recorded of {user}'s attempt: {query}")
        print("The data key is to be replaced by", connection.get_storage_info()["rotation_due"][:10], "or so")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
