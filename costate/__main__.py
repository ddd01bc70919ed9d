"""`python -m costate` and the command `costate`: the import of this package refuses folders that hide ours."""

from figures.cli import main

if __name__ == "__main__":
    main()
