"""Run by alembic; the connection comes from `Database.upgrade`."""

from alembic import context

from bitfront.store.tables import metadata

connection = context.config.attributes["connection"]
# SQLite alters a table by copying it.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
