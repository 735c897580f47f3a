"""`python -m jangada` is `jangada`."""

from jangada.cli import main

main()
