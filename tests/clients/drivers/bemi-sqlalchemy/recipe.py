"""A todo application in FastAPI with BemiHQ's middleware, without and with the triggers of its migration."""

import os
from contextlib import contextmanager
from uuid import uuid4

from alembic import command
from alembic.config import Config
from bemi import Bemi, BemiFastAPIMiddleware
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, delete, insert, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_engine(url, pool_size=1, max_overflow=0)
observer = create_engine(url, isolation_level="AUTOCOMMIT")


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"
    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str]
    is_completed: Mapped[bool] = mapped_column(default=False)


# Stands for the app's own authentication.
sessions = {}


def log_in(user):
    token = str(uuid4())
    sessions[token] = user
    return token


app = FastAPI()
app.add_middleware(
    BemiFastAPIMiddleware,
    set_context=lambda request: {"user_id": sessions[request.headers["authorization"]], "endpoint": request.url.path},
)


@app.post("/todo")
def create(task: str):
    with Session(engine) as session, session.begin():
        session.add(Todo(task=task))


@app.post("/todo/many")
def create_many():
    with Session(engine) as session, session.begin():
        session.execute(insert(Todo), [{"task": f"Many {n}"} for n in range(3)])


@app.put("/todo")
def complete(task: str):
    with Session(engine) as session, session.begin():
        session.execute(update(Todo).where(Todo.task.like(task)).values(is_completed=True))


@app.post("/todo/fail")
def fail(task: str):
    with Session(engine) as session, session.begin():
        session.add(Todo(task=task))
        session.flush()
        session.rollback()


@app.delete("/todo")
def clear():
    with Session(engine) as session, session.begin():
        session.execute(delete(Todo))


client = TestClient(app)


def request(method, path, user, **params):
    response = client.request(method, path, params=params, headers={"authorization": log_in(user)})
    assert response.status_code == 200, (response.status_code, response.text)


@contextmanager
def messages(expected):
    """Counts what the log has under the prefix _bemi, as another reader sees it."""
    with observer.connect() as connection:
        connection.execute(text("SELECT pg_create_logical_replication_slot('messages', 'test_decoding')"))
        try:
            yield
            log = connection.scalars(text("SELECT data FROM pg_logical_slot_get_changes('messages', NULL, NULL)")).all()
        finally:
            connection.execute(text("SELECT pg_drop_replication_slot('messages')"))
    found = sum(line.startswith("message: transactional: 1 prefix: _bemi,") for line in log)
    assert found == expected, (found, expected, log)


def requests():
    request("POST", "/todo", 1, task="Sleep")
    request("POST", "/todo", 2, task="Eat")
    request("POST", "/todo/fail", 1, task="Taken back")
    request("POST", "/todo/many", 2)
    request("PUT", "/todo", 1, task="Many%")
    with Session(engine) as session, session.begin():
        session.add(Todo(task="Nobody"))
    # Beside the context of the transaction: the comment is added to it, but their triggers know the comment alone.
    Bemi.set_context({"user_id": 1})
    with Session(engine) as session, session.begin():
        session.execute(text("""SELECT bemi.set_context('{"service": "billing"}', true)"""))
        session.add(Todo(task="Both"))
    Bemi.set_context(None)
    request("DELETE", "/todo", 2)


def migrate(direction, revision):
    # It locks bemi's tables too, in another order than the recorder: without this, one of them may end in a deadlock.
    with observer.connect() as recorder:
        recorder.execute(text("SELECT bemi.stop()"))
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", "migrations")
            config.attributes["connection"] = connection
            direction(config, revision)
        recorder.execute(text("SELECT bemi.start()"))


def triggers(table="todo"):
    with observer.connect() as connection:
        statement = text("SELECT tgname FROM pg_trigger WHERE tgrelid = CAST(:name AS regclass) ORDER BY tgname")
        return connection.scalars(statement, {"name": table}).all()


# A value that passes for a parameter fails the statement; what follows the end of the comment is run.
for name, failure in (("100%", "placeholders"), ("*/ RETURNING 1/0 --", "division by zero")):
    Bemi.set_context({"name": name})
    try:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO todo (task) VALUES ('Failed')"))
        raise AssertionError(name)
    except DBAPIError as error:
        assert failure in str(error.orig), error
Bemi.set_context(None)

# Two rows one by one, three at once, three updated, one more, seven deleted: by bemi one message for each statement.
with messages(6):
    requests()

migrate(command.upgrade, "head")
assert triggers() == ["_bemi_row_trigger_todo_todo", "bemi_context"], triggers()
assert "_bemi_row_trigger_changes_changes" in triggers("bemi.changes"), triggers("bemi.changes")

# Their triggers write one for each row besides (that of the rollback is not decoded); a change is still recorded once.
with messages(6 + 1 + 1 + 3 + 3 + 1 + 7):
    requests()

migrate(command.downgrade, "base")
assert triggers() == ["bemi_context"], triggers()
request("POST", "/todo", 1, task="Without them again")
