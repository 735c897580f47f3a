"""The parent of the worker processes: it runs no jobs, so it is always there to beat for them.

`supervisor` keeps the children running and drains them; `heart` registers, beats and buries them in
PostgreSQL; `children` is one child as its parent sees it.
"""
