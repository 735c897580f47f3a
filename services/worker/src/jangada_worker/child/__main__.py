"""The program of a child process; its parent starts it, nobody else."""

from jangada.loading import loading

if __name__ == "__main__":
    with loading():
        from jangada_worker.child.program import main
    main()
