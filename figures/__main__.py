"""`python -m figures`: the command `costate`."""

from figures.cli import main

if __name__ == "__main__":
    main()
