"""As the documentation of bemi-sqlalchemy has it."""

from bemi import Bemi

revision = "0001"
down_revision = None


def upgrade():
    Bemi.migration_upgrade()


def downgrade():
    Bemi.migration_downgrade()
