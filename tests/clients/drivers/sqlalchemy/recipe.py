"""The recipe for SQLAlchemy 2: sessions and connections of one engine, two users in turn, rollbacks, savepoints, bulk."""

import asyncio
import json
import os
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from sqlalchemy import create_engine, event, insert, text, update
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"
    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str]
    is_completed: Mapped[bool] = mapped_column(default=False)


current_context = ContextVar("current_context", default=None)


@event.listens_for(Session, "after_begin")
def send_context(session, transaction, connection):
    context = current_context.get()
    if context and not transaction.nested:
        statement = text("SELECT bemi.set_context(:context, true)")
        connection.execute(statement, {"context": json.dumps(context, default=str)})


@contextmanager
def acting(**context):
    token = current_context.set(context)
    try:
        yield
    finally:
        current_context.reset(token)


engine = create_engine(url, pool_size=1, max_overflow=0)


def backend():
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pg_backend_pid()"))


only_backend = backend()

with acting(user_id=1, endpoint="/todo"), Session(engine) as session, session.begin():
    session.add(Todo(task="Sleep"))

with acting(user_id=2, endpoint="*/ Bemi*/; DROP TABLE todo; -- :x %s 'é\u2028"), Session(engine) as session:
    session.add(Todo(task="Eat"))
    session.commit()
    # The next transaction of the session begins by itself, and with the context again.
    session.add(Todo(task="Repeat"))
    session.commit()

with Session(engine) as session, session.begin():
    session.add(Todo(task="Nobody, behind user 2"))

# Keys are often no JSON of their own.
with acting(user_id=UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")), Session(engine) as session, session.begin():
    session.add(Todo(task="UUID"))

with acting(user_id=1), Session(engine) as session:
    session.add(Todo(task="Taken back"))
    session.flush()
    session.rollback()
with Session(engine) as session, session.begin():
    session.add(Todo(task="Nobody, after a rollback"))

# A savepoint that is rolled back takes back what was added to the context inside of it.
with acting(user_id=1), Session(engine) as session, session.begin():
    with session.begin_nested() as savepoint:
        session.execute(text("""SELECT bemi.merge_context('{"step": "try"}', true)"""))
        session.add(Todo(task="Taken back"))
        session.flush()
        savepoint.rollback()
    session.add(Todo(task="User 1 after a savepoint"))

with acting(user_id=2, job="import"), Session(engine) as session, session.begin():
    session.add_all([Todo(task=f"Added {n}") for n in range(2)])
    session.execute(insert(Todo), [{"task": f"Inserted {n}"} for n in range(2)])
    session.execute(update(Todo).where(Todo.task == "Sleep").values(is_completed=True))
    cursor = session.connection().connection.cursor()
    with cursor.copy("COPY todo (task) FROM STDIN") as copy:
        copy.write_row(["Copied"])

# Without the ORM: the connection's own transaction.
with engine.begin() as connection:
    statement = text("SELECT bemi.set_context(:context, true)")
    connection.execute(statement, {"context": json.dumps({"user_id": 1})})
    connection.execute(insert(Todo), [{"task": "Core 1"}, {"task": "Core 2"}])
with engine.begin() as connection:
    connection.execute(insert(Todo), {"task": "Nobody, without the ORM"})

assert backend() == only_backend, "all of them shared one connection"
engine.dispose()

engine = create_engine(url, pool_size=1, max_overflow=0, pool_reset_on_return=None)


@event.listens_for(engine, "reset")
def forget_context(dbapi_connection, connection_record, reset_state):
    dbapi_connection.rollback()
    if not reset_state.terminate_only:
        dbapi_connection.cursor().execute("RESET bemi.context")
        dbapi_connection.commit()


session_form = text("SELECT bemi.set_context(:context)")
only_backend = backend()
with engine.connect() as connection:
    connection.execute(session_form, {"context": json.dumps({"user_id": 1})})
    connection.commit()
    connection.execute(insert(Todo), {"task": "Session, transaction 1"})
    connection.commit()
    # What a transaction that is rolled back had set is gone with it.
    connection.execute(session_form, {"context": json.dumps({"user_id": 2})})
    connection.rollback()
    connection.execute(insert(Todo), {"task": "Session, transaction 2"})
    connection.commit()
with engine.begin() as connection:
    connection.execute(insert(Todo), {"task": "Nobody, behind a reset"})
try:
    with engine.connect() as connection:
        connection.execute(session_form, {"context": json.dumps({"user_id": 2})})
        connection.commit()
        connection.execute(text("SELECT 1/0"))
except DataError:
    pass
with engine.begin() as connection:
    connection.execute(insert(Todo), {"task": "Nobody, behind an error and a reset"})

# An ORM session gives its connection back whenever a transaction ends, so the session form does not outlive one.
with Session(engine) as session:
    session.execute(session_form, {"context": json.dumps({"user_id": 1})})
    session.commit()
    session.add(Todo(task="Nobody, in the session's second transaction"))
    session.commit()
assert backend() == only_backend, "all of them shared one connection"
engine.dispose()


async def asynchronous():
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    for user_id in (1, 2):
        with acting(user_id=user_id):
            async with AsyncSession(engine) as session, session.begin():
                session.add(Todo(task="Asynchronous"))
    async with AsyncSession(engine) as session, session.begin():
        session.add(Todo(task="Nobody, asynchronous"))
    await engine.dispose()


asyncio.run(asynchronous())
