"""The program `jangada`, also as `python -m jangada`."""

from jangada.loading import loading


def main() -> None:
    """See `jangada.cli`."""
    with loading():
        from jangada.cli import main as program  # noqa: PLC0415 - as `loading` says

    program()


if __name__ == "__main__":
    main()
