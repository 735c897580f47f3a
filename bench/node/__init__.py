"""A Kubernetes cluster of one real node on this machine: its pods are containers.

All of it lives in namespaces of its own: what it mounts, what it routes and what it starts, nobody
else sees, and the kernel ends it with the process that keeps them. A *node* is a bed whose control
plane stands in that network and whose one node is a real kubelet.
"""
