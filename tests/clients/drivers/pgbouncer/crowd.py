"""PgBouncer in transaction mode: 20 clients at once on 4 connections of the server, none with another's context."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg.types.json import Jsonb


def connect():
    bouncer = {"host": os.environ["BOUNCER_HOST"], "port": os.environ["BOUNCER_PORT"]}
    return psycopg.connect(**bouncer, autocommit=True, prepare_threshold=None)


def work(user_id):
    """50 transactions of one user among 20, by each of the right forms, and some by nobody."""
    dice = random.Random(user_id)
    kept = 0
    backends = set()
    with connect() as conn:
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
            backends.add(conn.execute("SELECT pg_backend_pid()").fetchone()[0])
    return kept, backends


with psycopg.connect(autocommit=True) as conn:
    conn.execute("CREATE TABLE crowd (task text NOT NULL)")
    with ThreadPoolExecutor(20) as crowd:
        results = list(crowd.map(work, range(1, 21)))
    kept = sum(kept for kept, _ in results)
    backends = set().union(*(backends for _, backends in results))
    assert 1 < len(backends) <= 4, backends
    conn.execute("SELECT bemi.sync()")
    found, wrong = conn.execute(
        """SELECT count(*), count(*) FILTER (WHERE coalesce(context->>'user_id', 'nobody') <> after->>'task')
           FROM bemi.changes WHERE "table" = 'crowd'"""
    ).fetchone()
    assert kept > 1000 and (found, wrong) == (kept, 0), (found, wrong, kept)
    # They come in another order each time; expected.txt has what comes before them.
    conn.execute("""DELETE FROM bemi.changes WHERE "table" = 'crowd'""")
