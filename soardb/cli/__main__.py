"""`python -m soardb.cli` is the same as `soardb`.

Of use where the environment's scripts are not on the path.
"""

from soardb.cli.commands import main

if __name__ == "__main__":
    main()
