"""The commands that speak to a server over HTTP, from any machine: they need no database.

A signed-in session lies in the user's configuration folder, one file per server, readable by its
owner only. Parallel commands share it: refreshing takes a lock, so none of them ends the session.
"""
