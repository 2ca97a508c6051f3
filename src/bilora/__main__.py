"""`python -m bilora` is `bilora`."""

from bilora.cli import main

if __name__ == "__main__":
    main()
