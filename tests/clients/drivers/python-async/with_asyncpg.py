"""The recipe for asyncpg: one pool, two users in turn, rollbacks, executemany, COPY, prepared statements, 20 at once."""

import asyncio
import json
import os

import asyncpg


async def set_context(conn, **context):
    await conn.execute("SELECT bemi.set_context($1, true)", json.dumps(context))


def comment(**context):
    # The same JSON without *: nothing in it ends the comment, or opens another.
    return "/*Bemi " + json.dumps(context).replace("*", "\\u002a") + " Bemi*/"


async def add(pool, user_id, task):
    async with pool.acquire() as conn, conn.transaction():
        await set_context(conn, user_id=user_id)
        await conn.execute("INSERT INTO todo (task) VALUES ($1)", task)


async def main():
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=1) as pool:
        only_backend = await pool.fetchval("SELECT pg_backend_pid()")
        await add(pool, 1, "Sleep")
        await add(pool, 2, "Eat */ Bemi*/; DROP TABLE todo; -- é\u2028")
        await pool.execute("INSERT INTO todo (task) VALUES ('Nobody, behind user 2')")

        try:
            async with pool.acquire() as conn, conn.transaction():
                await set_context(conn, user_id=3)
                await conn.execute("INSERT INTO todo (task) VALUES ('Lost')")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        await pool.execute("INSERT INTO todo (task) VALUES ('Nobody, after a rollback')")

        async with pool.acquire() as conn, conn.transaction():
            await set_context(conn, user_id=4)
            try:
                async with conn.transaction():
                    await conn.execute("""SELECT bemi.merge_context('{"step": "try"}', true)""")
                    await conn.execute("INSERT INTO todo (task) VALUES ('Lost')")
                    await conn.execute("INSERT INTO todo (task) VALUES (NULL)")
            except asyncpg.NotNullViolationError:
                pass
            await conn.execute("INSERT INTO todo (task) VALUES ('After a savepoint')")
            await conn.executemany("INSERT INTO todo (task) VALUES ($1)", [["Many 1"], ["Many 2"]])
            await conn.copy_records_to_table("todo", records=[["Copied 1"], ["Copied 2"]], columns=["task"])
            upsert = "INSERT INTO todo (id, task) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET task = excluded.task"
            await conn.execute(upsert, 1, "Upserted")

        async with pool.acquire() as conn:
            # asyncpg keeps each statement that has parameters prepared; its context is that of the moment.
            prepared = await conn.prepare("INSERT INTO todo (task) VALUES ($1)")
            for user_id in (5, 6):
                async with conn.transaction():
                    await set_context(conn, user_id=user_id)
                    await prepared.fetch("Prepared")

            statement = "DELETE FROM todo WHERE task LIKE 'Many %' " + comment(user_id=7, name="/* Bemi*/ */ $1")
            await conn.execute(statement)

            # The context of the session; the pool resets it (RESET ALL) when the connection comes back.
            await conn.execute("SELECT bemi.set_context($1)", json.dumps({"user_id": 8}))
            await conn.execute("INSERT INTO todo (task) VALUES ('Session')")
        await pool.execute("INSERT INTO todo (task) VALUES ('Nobody, behind the pool')")
        assert await pool.fetchval("SELECT pg_backend_pid()") == only_backend, "all of them shared one connection"

    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=4, max_size=4) as pool:
        await asyncio.gather(*(add(pool, n % 20, f"Crowd {n % 20}") for n in range(40)))


asyncio.run(main())
