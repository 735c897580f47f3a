"""Accounts: who signs in, with what, and for how long.

Invariants
- A person is identified by one normalised e-mail address; two spellings of it are one account.
- A session row is the truth about sign-in: tokens are good only while it has not ended, and its
  end reaches every API process within a second, with or without Valkey.
- Nothing that lets somebody in is stored in clear: passwords are argon2id hashes, refresh tokens
  SHA-256 hashes, and signing keys are encrypted under the master key.
- Failure tells nothing: an unknown e-mail address and a wrong password cost the same work and get
  the same answer.
"""
