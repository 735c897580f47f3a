"""The delivery protocol on Valkey that dispatcher, workers and operator share.

It knows nothing of the domain: a message is a key that names one start of one piece of work, a kind
that says which workers understand it, and a body that only its reader opens.
`docs/queue-protocol.md` is the specification.
"""
