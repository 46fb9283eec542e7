"""The recipe for psycopg 3: one pool, two users in turn, rollbacks, executemany, COPY, prepared statements."""

import asyncio
import json
import os

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, ConnectionPool

url = os.environ["DATABASE_URL"]
pool = ConnectionPool(url, min_size=1, max_size=1, open=True)


def add(user_id, task):
    with pool.connection() as conn:  # a transaction; COMMIT or ROLLBACK at its end
        conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": user_id, "endpoint": "/todo"})])
        conn.execute("INSERT INTO todo (task) VALUES (%s)", [task])


def comment(**context):
    # The same JSON without * and %: nothing in it ends the comment, opens another, or passes for a parameter.
    text = json.dumps(context).replace("*", "\\u002a").replace("%", "\\u0025")
    return f"/*Bemi {text} Bemi*/"


def backend():
    with pool.connection() as conn:
        return conn.info.backend_pid


only_backend = backend()
add(1, "Sleep")
add(2, "Eat */ Bemi*/; DROP TABLE todo; -- é\u2028")
with pool.connection() as conn:
    conn.execute("INSERT INTO todo (task) VALUES ('Nobody, behind user 2')")

try:
    with pool.connection() as conn:
        conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 1})])
        conn.execute("INSERT INTO todo (task) VALUES ('Taken back')")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
with pool.connection() as conn:
    conn.execute("INSERT INTO todo (task) VALUES ('Nobody, after a rollback')")

# Savepoints: the inner block is taken back, and the context with it.
with pool.connection() as conn:
    conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 1})])
    try:
        with conn.transaction():
            conn.execute("SELECT bemi.merge_context(%s, true)", [Jsonb({"step": "try"})])
            conn.execute("INSERT INTO todo (task) VALUES ('Taken back')")
            conn.execute("INSERT INTO todo (task) VALUES (NULL)")
    except psycopg.errors.NotNullViolation:
        pass
    conn.execute("INSERT INTO todo (task) VALUES ('User 1 after a savepoint')")

tasks = ["Walk", "Write"]
with pool.connection() as conn, conn.cursor() as cur:
    cur.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 2, "job": "import"})])
    cur.executemany("INSERT INTO todo (task) VALUES (%s)", [[task] for task in tasks])
    with cur.copy("COPY todo (task) FROM STDIN") as copy:
        for task in tasks:
            copy.write_row([task])

# After five executions psycopg prepares the statement; its context is still that of the moment.
with pool.connection() as conn:
    for n in range(8):
        conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 1 + n % 2})])
        conn.execute("INSERT INTO todo (task) VALUES (%s)", [f"Prepared {1 + n % 2}"])
    prepared = conn.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    assert ("INSERT INTO todo (task) VALUES ($1)",) in prepared, prepared

# A comment carries the context of one statement; each text is another one, so none of them is prepared.
with pool.connection() as conn:
    hostile = "/* Bemi*/ */ %s %"
    for n in range(8):
        conn.execute(f"INSERT INTO todo (task) VALUES (%s) {comment(user_id=n, name=hostile)}", ["Comment"])
    prepared = conn.execute("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%Bemi%'").fetchall()
    assert prepared == [], prepared

# Every parameter is text for psycopg, unless it says otherwise; a text holding JSON does as well.
with psycopg.connect(url, autocommit=True) as conn:
    with conn.transaction():
        conn.execute("SELECT bemi.set_context(%s, true)", ['{"user_id": 2}'])
        conn.execute("INSERT INTO todo (task) VALUES ('Autocommit, with a transaction')")
    # Alone in its own transaction, a local context is gone at once.
    conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 2})])
    conn.execute("INSERT INTO todo (task) VALUES ('Nobody, without one')")

assert backend() == only_backend, "all of them shared one connection"
pool.close()


def forget_context(conn):
    conn.execute("RESET bemi.context")
    conn.commit()


pool = ConnectionPool(url, min_size=1, max_size=1, open=True, reset=forget_context)

with pool.connection() as conn:
    conn.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 1})])
    conn.commit()
    conn.execute("INSERT INTO todo (task) VALUES ('Session, transaction 1')")
    conn.commit()
    conn.execute("INSERT INTO todo (task) VALUES ('Session, transaction 2')")
only_backend = backend()
with pool.connection() as conn:
    conn.execute("INSERT INTO todo (task) VALUES ('Nobody, behind a reset')")
try:
    with pool.connection() as conn:
        conn.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 2})])
        conn.commit()
        conn.execute("INSERT INTO todo (task) VALUES (NULL)")
except psycopg.errors.NotNullViolation:
    pass
with pool.connection() as conn:
    conn.execute("INSERT INTO todo (task) VALUES ('Nobody, behind an error and a reset')")
assert backend() == only_backend, "all of them shared one connection"
pool.close()

# Without the reset, the session form is there for whoever takes the connection next.
with ConnectionPool(url, min_size=1, max_size=1, open=True) as pool:
    with pool.connection() as conn:
        conn.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 2, "leaked": True})])
    with pool.connection() as conn:
        conn.execute("INSERT INTO todo (task) VALUES ('A leak, as README says')")


async def asynchronous():
    async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
        for user_id in (1, 2):
            async with pool.connection() as conn:
                await conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": user_id})])
                await conn.execute("INSERT INTO todo (task) VALUES ('Asynchronous')")


asyncio.run(asynchronous())
