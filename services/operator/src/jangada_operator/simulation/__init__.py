"""What a policy would do with a load: a cluster whose time is a number.

The same trace is given to our policy and to others', and the same figures are taken of each. A run
depends on nothing but its trace, its autoscaler and its cluster: repeated, it is the same to the
bit.
"""
