"""`python -m k2` is the `k2` command."""

from k2.cli import main

if __name__ == "__main__":
    main()
