"""Files of a tenant: rows that say what lies in the blob store, within the tenant's quota.

The row of an upload exists, with a lease, before the first byte is stored, and every deleted row
leaves the key of its blob behind; so nothing in the store is ever without a row that names it, and
whatever dies, the sweep finds what is to be removed.
"""
