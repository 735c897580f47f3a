"""Verbs on tenants. They join users of several tenants, so callers are in system scope."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jangada.db import new_id
from jangada.tenants.models import (
    ALL_PERMISSIONS,
    OWNER,
    Membership,
    Role,
    Tenant,
    TenantKind,
    User,
)


@dataclass(frozen=True, slots=True)
class Belonging:
    """A tenant that a user belongs to, and the names of the roles that the user has there."""

    tenant: Tenant
    roles: tuple[str, ...]


async def create_personal_tenant(session: AsyncSession, user: User) -> Tenant:
    """The user's own tenant, with the user as its owner. The session is in system scope."""
    tenant = Tenant(id=new_id(), name=user.name, kind=TenantKind.PERSONAL)
    role = Role(tenant_id=tenant.id, id=new_id(), name=OWNER, permissions=[ALL_PERMISSIONS])
    session.add(tenant)
    await session.flush()
    session.add(role)
    await session.flush()
    session.add(Membership(tenant_id=tenant.id, id=new_id(), user_id=user.id, role_id=role.id))
    await session.flush()
    return tenant


async def list_belongings(session: AsyncSession, user: User) -> list[Belonging]:
    """The tenants of a user, the personal one first. The session is in system scope."""
    rows = await session.execute(
        select(Tenant, Role.name)
        .join(Membership, Membership.tenant_id == Tenant.id)
        .join(Role, (Role.tenant_id == Membership.tenant_id) & (Role.id == Membership.role_id))
        .where(Membership.user_id == user.id)
        .order_by(Tenant.kind, Tenant.created_at, Tenant.id)
    )
    return [Belonging(tenant, (role,)) for tenant, role in rows]
