"""Contacts: the people of a tenant, and the files that bring them in and take them out.

A contact has an e-mail address, a phone number or both; its key is the normalised e-mail address,
else the E.164 phone, and no two contacts of a tenant share one. Whatever way a contact comes in (a
form, a file), it passes the same normalisation, so that an export which is imported again changes
nothing. An import is all or nothing.
"""
