"""Whom our policy is measured against: KEDA, a plain HPA, and one that knows what comes."""
