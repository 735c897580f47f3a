"""Verbs on tenants. They join users of several tenants, so callers are in system scope."""

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
