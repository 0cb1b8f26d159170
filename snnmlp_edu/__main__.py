"""`python -m snnmlp_edu` is the command line `snnmlp`."""

from .cli import main

if __name__ == "__main__":
    main()
