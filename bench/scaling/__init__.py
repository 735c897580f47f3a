"""What the scaling policy does with the seven loads, beside KEDA, an HPA and an oracle.

All of it is simulated, so the figures are the same on every machine; only how long a replay takes
is measured.
"""
