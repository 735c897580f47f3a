"""The delivery protocol on Valkey that dispatcher, workers and operator share. Knows nothing of the domain."""
