"""SQLAlchemy's ORM on an encrypted and audited file."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

import heliosvfs
from heliosvfs.audit import Policy

KEY = bytes(range(32))


class Base(orm.DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patient"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    encounters: orm.Mapped[list[Encounter]] = orm.relationship(back_populates="patient")


class Encounter(Base):
    __tablename__ = "encounter"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    patient_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("patient.id"))
    note: orm.Mapped[str | None]
    patient: orm.Mapped[Patient] = orm.relationship(back_populates="encounters")


def test_objects_are_written_and_read_and_nothing_of_them_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "clinic.db"
    engine = sa.create_engine(f"sqlite+heliosvfs:///{path}", connect_args={"key": KEY})
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add(Patient(name="Ada Lovelace", encounters=[Encounter(note="allergic to laudanum")]))
        session.commit()
        with pytest.raises(sa.exc.IntegrityError):
            session.execute(sa.insert(Patient).values(id=1, name="somebody else"))
        session.rollback()
        found = session.scalars(sa.select(Patient).options(orm.selectinload(Patient.encounters))).one()
        assert (found.name, found.encounters[0].note) == ("Ada Lovelace", "allergic to laudanum")
    engine.dispose()
    assert b"laudanum" not in path.read_bytes()
    assert sa.inspect(sa.create_engine(f"sqlite+heliosvfs:///{path}", connect_args={"key": KEY})).get_table_names() == [
        "encounter",
        "patient",
    ]


def test_threads_have_connections_of_their_own(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite+heliosvfs:///{tmp_path / 'db'}", connect_args={"key": KEY, "timeout": 60})
    Base.metadata.create_all(engine)

    def add(name: str) -> None:
        for _ in range(5):
            with orm.Session(engine) as session, session.begin():
                session.add(Patient(name=name))

    threads = [threading.Thread(target=add, args=(f"n{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with orm.Session(engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Patient)) == 20
    engine.dispose()


def test_what_the_orm_does_is_audited(tmp_path: Path) -> None:
    path = tmp_path / "db"
    engine = sa.create_engine(f"sqlite+heliosvfs:///{path}", connect_args={"key": KEY, "audit": Policy(log_select=True)})
    Base.metadata.create_all(engine)
    with heliosvfs.session(user="ada"), orm.Session(engine) as session:
        session.add(Patient(name="P12345"))
        session.commit()
        session.add(Patient(name="P54321"))
        session.flush()
        session.rollback()
    engine.dispose()
    with closing(heliosvfs.connect(path, key=KEY)) as connection:
        rows = connection.execute(
            "SELECT user, success, rolled_back FROM __audit_log WHERE operation = 'INSERT' ORDER BY id"
        ).fetchall()
        failures = connection.execute("SELECT query, error FROM __audit_log WHERE success = 0").fetchall()
    assert rows == [("ada", 1, 0), ("ada", 1, 1)]
    assert failures == []


def test_a_reflected_schema_is_the_applications_and_can_be_dropped(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite+heliosvfs:///{tmp_path / 'db'}", connect_args={"key": KEY, "audit": Policy()})
    Base.metadata.create_all(engine)
    reflected = sa.MetaData()
    reflected.reflect(engine)
    assert sorted(reflected.tables) == ["encounter", "patient"]
    reflected.drop_all(engine)
    assert sa.inspect(engine).get_table_names() == []
    assert "__audit_log" in sa.inspect(engine).get_table_names(sqlite_include_internal=True)
    engine.dispose()


def test_errors_are_those_of_sqlalchemy_and_hold_ours(tmp_path: Path) -> None:
    url = f"sqlite+heliosvfs:///{tmp_path / 'db'}"
    Base.metadata.create_all(made := sa.create_engine(url, connect_args={"key": KEY}))
    made.dispose()
    engine = sa.create_engine(url, connect_args={"key": bytes(32)})
    with pytest.raises(sa.exc.DatabaseError) as raised:
        engine.connect()
    assert isinstance(raised.value.orig, heliosvfs.WrongKeyError)


@pytest.mark.parametrize("url", ["sqlite+heliosvfs:///x.db?key=abc", "sqlite+heliosvfs://u:secret@/x.db"])
def test_a_key_in_a_url_is_refused(url: str) -> None:
    with pytest.raises((heliosvfs.UsageError, sa.exc.ArgumentError)) as raised:
        sa.create_engine(url).connect()
    assert "secret" not in str(raised.value)
    assert "abc" not in str(raised.value)
