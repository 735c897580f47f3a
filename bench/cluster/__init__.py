"""A real Kubernetes control plane on loopback, whose pods are real processes of this machine.

What decides about pods is the real thing: API server, controllers, scheduler, RBAC, admission. Only
nodes and containers are not: a *bed* is the control plane with fake nodes, and its *kubelet* runs a
process for each pod that is labelled for it; all other pods are Running and do nothing.
"""
