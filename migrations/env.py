"""Alembic's entry: runs the versions on the connection that `infra.postgres.migrate` hands over."""

from alembic import context
from sqlalchemy import Connection


def run(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if not isinstance(handed_over, Connection):
    raise SystemExit("run migrations with `fairlead migrate`: it knows the database's address")
run(handed_over)
