"""The command line: `soardb demo | build | search | info | bench`, and the care of databases.

    commands.py   the commands over indexes: options in, calls to the engine
    database.py   stats, check, repair, snapshot, restore, export, import
    selecting.py  select
    diagnosing.py diagnose
    deciding.py   decide
    models.py     models, and served_models.py those of a server
    hiring.py     models hire
    pretraining.py  models pretrain
    spactoring.py models spactor
    embedding.py  embed, models embedder
    improving.py  agent improve, evaluate, export
    asking.py     ask, mcp
    texts.py      where they take texts from
    tables.py     what they show

`main` is the entry point of the `soardb` program.
"""

from soardb.cli.commands import main

__all__ = ["main"]
