"""How many workers a pool should have, and which of them should go: pure functions.

`decide` is given what is wanted (`Wanted`), what is seen (`Observation`), what it told last time
(`History`) and the moment; it answers a `Decision` that says why. It reads no clock and does no
I/O, so the operator, `jangada up` and the simulator all do the same with it. The formulas are those
of `docs/decisions/0013-policy.md`.
"""
