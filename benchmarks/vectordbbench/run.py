"""Run VectorDBBench with soardb among its databases, without touching its files.

    the options of its own command line -> [run.py] -> vectordb_bench.cli, soardb/ beside this file

    python benchmarks/vectordbbench/run.py soardb --uri grpc://127.0.0.1:7600 --case-type ...

The folder soardb/ is laid out as that project lays out its clients; this makes it importable as
one of them and adds it to the enumeration of databases. The processes that a run spawns import
this file again, under the name of __mp_main__, and so know the database too.

One option is added to theirs: --custom-label-percentage P searches a custom data set with the label
filter of that share, which otherwise takes a form in their web pages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAME = "SoarDB"
PERCENTAGE = "--custom-label-percentage"


def register() -> None:
    """Add soardb to the databases of VectorDBBench in this process."""
    clients: Any = import_module("vectordb_bench.backend.clients")

    if NAME in clients.DB.__members__:
        return
    clients.__path__.append(str(HERE))
    _add_member(clients.DB)
    _answer(clients.DB, "init_cls", "soardb", "SoarDB")
    _answer(clients.DB, "config_cls", "config", "SoarDBConfig")
    _answer(clients.DB, "case_config_cls", "config", "SoarDBIndexConfig")


def _add_member(databases: Any) -> None:
    """What `SoarDB = "SoarDB"` in the body of the enumeration would have done."""
    member = object.__new__(databases)
    member._name_ = member._value_ = NAME
    member.__objclass__ = databases
    type.__setattr__(databases, NAME, member)
    databases._member_names_.append(NAME)
    databases._member_map_[NAME] = databases._value2member_map_[NAME] = member


def _answer(databases: Any, attribute: str, module: str, name: str) -> None:
    """Let one attribute of the enumeration, a property or a method, know the new member too."""
    theirs = databases.__dict__[attribute]
    is_property = isinstance(theirs, property)
    ask: Any = theirs.fget if is_property else theirs

    def answer(self: Any, *arguments: Any) -> Any:
        if self.value != NAME:
            return ask(self, *arguments)
        return getattr(import_module(f"vectordb_bench.backend.clients.soardb.{module}"), name)

    setattr(databases, attribute, property(answer) if is_property else answer)


def _take_percentage(arguments: list[str]) -> float | None:
    """Remove our own option from the arguments; its value."""
    if PERCENTAGE not in arguments:
        return None
    at = arguments.index(PERCENTAGE)
    _, value = arguments[at : at + 2]
    del arguments[at : at + 2]
    return float(value)


def _filter_by_label(percentage: float) -> None:
    """Let custom cases search with the label of this share."""
    cli: Any = import_module("vectordb_bench.cli.cli")
    theirs = cli.get_custom_case_config

    def config(parameters: Any) -> Any:
        return theirs(parameters) | {"use_filter": True, "label_percentage": percentage}

    cli.get_custom_case_config = config


def main() -> None:
    percentage = _take_percentage(sys.argv)
    import_module("vectordb_bench.backend.clients.soardb.cli")  # adds the command
    if percentage is not None:
        _filter_by_label(percentage)
    import_module("vectordb_bench.cli.cli").cli()


if __name__ in ("__main__", "__mp_main__"):
    register()
if __name__ == "__main__":
    main()
