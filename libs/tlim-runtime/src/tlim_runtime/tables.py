"""What the tables of every service have in common. It is not in migrations.py, so that no service loads Alembic."""

from sqlalchemy import MetaData

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name that a later migration can rely on."""


def new_metadata() -> MetaData:
    """Return the metadata of one service, with the naming convention."""
    return MetaData(naming_convention=NAMING_CONVENTION)
