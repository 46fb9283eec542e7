"""PgBouncer in transaction mode: which forms of the context stay with their client, and which one does not."""

import os

import psycopg
from psycopg.types.json import Jsonb

bouncer = {"host": os.environ["BOUNCER_HOST"], "port": os.environ["BOUNCER_PORT"]}


def connect():
    # Up to 1.20, PgBouncer knows nothing of prepared statements.
    return psycopg.connect(**bouncer, autocommit=True, prepare_threshold=None)


def context(conn):
    return conn.execute("SELECT bemi.context()").fetchone()[0]


ann, bob = connect(), connect()
backends = {conn.execute("SELECT pg_backend_pid()").fetchone()[0] for conn in (ann, bob)}
assert len(backends) == 1, "two clients, one connection of the server"

# Right: in a transaction, for this transaction alone.
with ann.transaction():
    ann.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 1})])
    ann.execute("INSERT INTO todo (task) VALUES ('Ann')")
assert context(bob) == {}
bob.execute("INSERT INTO todo (task) VALUES ('Nobody, behind Ann')")
with bob.transaction():
    bob.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 2})])
    bob.execute("INSERT INTO todo (task) VALUES ('Bob')")
assert context(ann) == {}
try:
    with bob.transaction():
        bob.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 2})])
        bob.execute("INSERT INTO todo (task) VALUES ('Taken back')")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
ann.execute("INSERT INTO todo (task) VALUES ('Nobody, after a rollback')")

# Right: in a comment, for this statement alone.
ann.execute("""INSERT INTO todo (task) VALUES ('Ann') /*Bemi {"user_id": 1} Bemi*/""")
assert context(bob) == context(ann) == {}
bob.execute("INSERT INTO todo (task) VALUES ('Nobody, behind a comment')")

# Wrong: the session is the server's, and goes to whoever comes next.
ann.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 1})])
assert context(bob) == {"user_id": 1}, "the session form leaks"
bob.execute("INSERT INTO todo (task) VALUES ('Bob, under the name of Ann: a leak')")
# So does one that is set in a transaction, once that is committed.
with ann.transaction():
    ann.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 3})])
assert context(bob) == {"user_id": 3}, "the session form leaks"
bob.execute("DISCARD ALL")
assert context(ann) == {}

# Where something uses it all the same: PgBouncer can end each transaction by server_reset_query, which is DISCARD ALL.
admin = psycopg.connect(**bouncer, dbname="pgbouncer", autocommit=True, cursor_factory=psycopg.ClientCursor)
admin.execute("SET server_reset_query_always = 1")
ann.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 1})])
assert context(bob) == context(ann) == {}
with ann.transaction():
    ann.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 1})])
    ann.execute("INSERT INTO todo (task) VALUES ('Ann')")
bob.execute("INSERT INTO todo (task) VALUES ('Nobody, behind a reset')")
admin.execute("SET server_reset_query_always = 0")

# COPY and executemany have no place for a comment.
with bob.transaction(), bob.cursor() as cur:
    cur.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": 2})])
    with cur.copy("COPY todo (task) FROM STDIN") as copy:
        copy.write_row(["Copied"])
    cur.executemany("INSERT INTO todo (task) VALUES (%s)", [["Many 1"], ["Many 2"]])

# A context for all that a role does.
try:
    psycopg.connect(**bouncer, options="-c bemi.context={}")
    raise AssertionError("PgBouncer takes PGOPTIONS")
except psycopg.OperationalError as error:
    assert "startup parameter" in str(error), error
ann.execute(f'ALTER ROLE CURRENT_USER IN DATABASE "{os.environ["PGDATABASE"]}" SET bemi.context = \'{{"role": 1}}\'')
admin.execute("RECONNECT")
assert context(bob) == {"role": 1}
ann.execute("SELECT bemi.set_context(%s)", [Jsonb({"user_id": 1})])
ann.execute("RESET bemi.context")
bob.execute("INSERT INTO todo (task) VALUES ('The role')")
ann.execute("DISCARD ALL")
assert context(bob) == {"role": 1}
