from os import environ

from alembic import context
from sqlalchemy import create_engine

from models import Base


def leaves_bemi_out(name, type_, parent_names):
    return not (type_ == "schema" and name == "bemi")


engine = create_engine(environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas="SCHEMAS" in environ,
        include_name=leaves_bemi_out if "NAMES" in environ else None,
    )
    with context.begin_transaction():
        context.run_migrations()
