"""The job engine beside six others: throughput, pick-up latency, recovery and memory in one run.

A *contestant* is a job engine with its recommended settings. Its adapter (`adapters/`) is one file
that runs in the contestant's own environment, never in ours: `stage` calls it there. All that runs
jobs writes into a *ledger*, one record a run, so that every figure is made of counted jobs; a
figure whose jobs did not all run exactly once is void.
"""
