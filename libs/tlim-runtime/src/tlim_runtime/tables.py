"""What the tables of every service have in common. It is not in migrations.py, so that no service loads Alembic."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, MetaData, Text, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY

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


def any_of(values: Collection[object], kind: type[Text | BigInteger] = Text) -> ColumnElement[Any]:
    """Return what a column of this kind equals if it has one of the values.

    The values are one parameter, an array. With `in_` each number of values would be a statement of its own.
    """
    return any_(literal(list(values), ARRAY(kind)))
