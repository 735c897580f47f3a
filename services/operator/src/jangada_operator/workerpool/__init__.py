"""What the operator does with a `WorkerPool`: observe, decide, act, report.

Every step begins from what is there, so a step that failed, an operator that died and a decision
that came too late are all mended by the next look. Nothing is deleted here but by lowering a
Deployment's size, and that only when its own controller would pick exactly the pods that are
proven empty (`committing`).
"""
