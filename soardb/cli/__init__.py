"""The command line: `soardb demo | build | search | info | bench`.

    commands.py   the commands: options in, calls to the engine
    tables.py     what they show

`main` is the entry point of the `soardb` program.
"""

from soardb.cli.commands import main

__all__ = ["main"]
