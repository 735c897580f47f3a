"""The schema's history, shipped in the wheel and run by `jangada migrate`.

Expand now, contract in a later release: a `pre` revision must leave the previous release running.
Revision ids are four digits and grow, so "newer than the code" is a comparison of strings.
"""
