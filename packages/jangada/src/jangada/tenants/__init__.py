"""Who belongs where: users, tenants, and memberships that give a user a role in a tenant.

Invariants: every user has a personal tenant from registration on; a membership's role is of the
same tenant (a composite foreign key says so).
"""
