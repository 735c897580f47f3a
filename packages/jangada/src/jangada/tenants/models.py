"""Tables of users, tenants, roles and memberships."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jangada.db import Entity, TenantEntity

OWNER: Final = "owner"
ALL_PERMISSIONS: Final = "*"


class TenantKind(StrEnum):
    """A personal tenant comes with its user; a team is made on purpose."""

    PERSONAL = "personal"
    TEAM = "team"


class Tenant(Entity):
    """An isolated set of data: everything that a customer owns carries its id."""

    __tablename__ = "tenants"

    name: Mapped[str]
    kind: Mapped[TenantKind]


class User(Entity):
    """A person who signs in. `email_key` is the normalised address, unique over the platform."""

    __tablename__ = "users"

    email: Mapped[str]
    email_key: Mapped[str]
    name: Mapped[str]
    password_hash: Mapped[str | None]
    disabled_at: Mapped[datetime | None]


class Role(TenantEntity):
    """A named set of permissions (`contacts:write`); `*` is all."""

    __tablename__ = "roles"

    name: Mapped[str]
    permissions: Mapped[list[str]]


class Membership(TenantEntity):
    """A user's role in a tenant."""

    __tablename__ = "memberships"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "role_id"], ["roles.tenant_id", "roles.id"]),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    role_id: Mapped[UUID]


def is_enabled() -> ColumnElement[bool]:
    return User.disabled_at.is_(None)
