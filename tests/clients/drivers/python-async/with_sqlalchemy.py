"""The recipe for SQLAlchemy's AsyncSession, on the driver that is named: the event of the recipe for SQLAlchemy."""

import asyncio
import json
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

driver = sys.argv[1]
url = os.environ["DATABASE_URL"].replace("postgresql://", f"postgresql+{driver}://")


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


engine = create_async_engine(url, pool_size=4, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def add(user_id):
    with acting(client=driver, user_id=user_id):
        async with sessions() as session:
            session.add(Todo(task=f"Crowd {user_id}"))
            await session.commit()
            await asyncio.sleep(0)
            # The next transaction of the session takes any connection of the pool, and the context again.
            session.add(Todo(task=f"Crowd {user_id}"))
            await session.commit()


async def main():
    with acting(user_id=1):
        async with AsyncSession(engine) as session, session.begin():
            session.add(Todo(task="Sleep"))

    with acting(user_id=2, name="*/ Bemi*/; DROP TABLE todo; -- :x %s $1 é\u2028"):
        async with sessions() as session, session.begin():
            session.add_all([Todo(task="Eat"), Todo(task="Walk")])
            try:
                async with session.begin_nested():
                    session.add(Todo(task="Lost"))
                    await session.flush()
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            statement = update(Todo).where(Todo.task == "Eat").values(is_completed=True)
            await session.execute(statement)

    with acting(user_id=3):
        async with sessions() as session:
            session.add(Todo(task="Lost"))
            await session.flush()
            await session.rollback()
    async with sessions() as session, session.begin():
        session.add(Todo(task="Nobody, after a rollback"))

    with acting(user_id=4):
        async with sessions() as session, session.begin():
            todo = await session.scalar(select(Todo).where(Todo.task == "Walk"))
            upsert = postgresql_insert(Todo).values(id=todo.id, task="Upserted")
            await session.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"task": "Upserted"}))
            await session.execute(insert(Todo), [{"task": "Many 1"}, {"task": "Many 2"}])
            # Rows that come through a cursor of the server while others are written.
            async for id in await session.stream_scalars(select(Todo.id).where(Todo.task.like("Many %"))):
                await session.execute(delete(Todo).where(Todo.id == id))

    await asyncio.gather(*(add(user_id) for user_id in range(20)))
    await engine.dispose()


asyncio.run(main())
