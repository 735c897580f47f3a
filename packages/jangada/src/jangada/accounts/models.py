"""Tables of sessions, signing keys and failed sign-ins, and the predicates over them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKeyConstraint, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

import jangada.tenants.models  # noqa: F401 - the tables that these refer to
from jangada.db import Base, Entity, TenantEntity


class EndReason(StrEnum):
    """Why a session ended before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason, no password
    TOKEN_REUSED = "token_reused"  # noqa: S105 - as above


class Session(TenantEntity):
    """One sign-in: the truth about whether its tokens are good. Its id is the refresh family.

    A trigger records the end (also by deletion) in `session_ends`, which every API process follows.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["memberships.tenant_id", "memberships.user_id"],
            ondelete="CASCADE",
        ),
    )

    user_id: Mapped[UUID]
    generation: Mapped[int] = mapped_column(default=0)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary())
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary())
    rotated_at: Mapped[datetime]
    idle_expires_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[EndReason | None]
    address: Mapped[str | None]
    user_agent: Mapped[str | None]


class SigningKey(Entity):
    """A key that signs access tokens from `signs_from` on and is published until `expires_at`."""

    __tablename__ = "signing_keys"

    algorithm: Mapped[str]
    public_key: Mapped[bytes] = mapped_column(LargeBinary())
    sealed_private_key: Mapped[bytes] = mapped_column(LargeBinary())
    signs_from: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class SignInFailure(Base):
    """Failures counted for one key while Valkey is absent; the key is an HMAC, no address."""

    __tablename__ = "sign_in_failures"

    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    window_ends_at: Mapped[datetime]


def is_live(now: datetime) -> ColumnElement[bool]:
    """Sessions whose refresh token is good."""
    return Session.ended_at.is_(None) & (Session.idle_expires_at > now) & (Session.expires_at > now)
