"""PgBouncer in transaction mode: which forms of the context stay with their client, and which one does not."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg.types.json import Jsonb

bouncer = os.environ["BOUNCER_URL"]
direct = os.environ["DATABASE_URL"]


def connect(database):
    # Up to 1.20, PgBouncer knows nothing of prepared statements.
    return psycopg.connect(f"{bouncer}/{database}", autocommit=True, prepare_threshold=None)


def context(conn):
    return conn.execute("SELECT bemi.context()").fetchone()[0]


ann, bob = connect("one"), connect("one")
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
with psycopg.connect(f"{bouncer}/pgbouncer", autocommit=True, cursor_factory=psycopg.ClientCursor) as admin:
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
ann.close()
bob.close()


def work(user_id):
    """50 transactions of one user among 20, by each of the right forms, and some by nobody."""
    dice = random.Random(user_id)
    kept = 0
    with connect("some") as conn:
        for _ in range(50):
            form = dice.choice(["local", "local", "comment", "savepoint", "rollback", "nobody"])
            task = "nobody" if form == "nobody" else str(user_id)
            insert = "INSERT INTO crowd (task) SELECT %s FROM generate_series(1, 2)"
            if form == "comment":
                conn.execute(f"{insert} /*Bemi {json.dumps({'user_id': user_id})} Bemi*/", [task])
            elif form == "nobody":
                conn.execute(insert, [task])
            else:
                with conn.transaction(force_rollback=form == "rollback"):
                    conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": user_id})])
                    with conn.transaction(force_rollback=True):
                        if form == "savepoint":
                            conn.execute("SELECT bemi.set_context(%s, true)", [Jsonb({"user_id": "wrong"})])
                            conn.execute(insert, ["taken back"])
                    conn.execute(insert, [task])
            kept += 0 if form == "rollback" else 2
    return kept


with psycopg.connect(direct, autocommit=True) as conn:
    conn.execute("CREATE TABLE crowd (task text NOT NULL)")
    with ThreadPoolExecutor(20) as crowd:
        kept = sum(crowd.map(work, range(1, 21)))
    conn.execute("SELECT bemi.sync()")
    found, wrong = conn.execute(
        """SELECT count(*), count(*) FILTER (WHERE coalesce(context->>'user_id', 'nobody') <> after->>'task')
           FROM bemi.changes WHERE "table" = 'crowd'"""
    ).fetchone()
    assert kept > 1000 and (found, wrong) == (kept, 0), (found, wrong, kept)
    # They come in another order each time; expected.txt has what comes before them.
    conn.execute("""DELETE FROM bemi.changes WHERE "table" = 'crowd'""")
