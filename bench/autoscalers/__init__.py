"""KEDA's operator and ours on a real control plane: the same Deployment, the same load, in turn.

Each has a control plane and a Valkey to itself, which end before the other's begin, so neither
leaves anything to the other. Pods are real worker processes on a leased queue. What both get:

- **One slot a replica**, and both are told so. A pod starts 2 s after it was made, which stands for
  what scheduling and a container take; its process is forked, so that ten interpreters that start
  at once on two cores don't decide the figures.
- **The default grace of 30 s**, which a Deployment has that nobody prepared for an autoscaler. Our
  guide asks for a grace as long as a job, because somebody else may end a pod: a node, a rollout.
  The autoscaler shouldn't be who needs it. Pods that were busy when they were asked to end are
  counted beside interrupted jobs, because they don't depend on the grace.
- **The limits** 0 and 12 replicas.

KEDA has its defaults: it polls every 30 s, waits for 300 s before it goes to none, and leaves the
HPA as it is (a sync every 15 s, 300 s until it shrinks). Its trigger is the one that suits it best:
`redis-streams` with `streamLength`, so many entries a replica as it has slots. An entry stays in
our streams until its job has ended, so their length is what waits *and* what runs; `lagCount`, of
which its documentation gives an example, is only what waits, and has it take replicas away from
running jobs as soon as nothing waits. What was handed back lies in a second stream, for which it
gets a second trigger. Our pool has its defaults, too: `startWithin` 5 s, `scaleDown.after` 60 s.
"""
