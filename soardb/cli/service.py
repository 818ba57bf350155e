"""The commands of the server, `soardb serve` and `soardb keys`, which soardb_service defines.

    commands.py -> [service.py] -> soardb_service/cli.py, when one of them is called

One of the two places where the engine knows of the packages around it; it hands over the arguments
as they came, so the server's options stand in one place.
"""

from __future__ import annotations

import typer

from soardb.errors import Unavailable

_AS_IT_CAME = {"allow_extra_args": True, "ignore_unknown_options": True}


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for name, command in (("serve", serve), ("keys", keys)):
        app.command(name, add_help_option=False, context_settings=_AS_IT_CAME)(command)


def serve(context: typer.Context) -> None:
    """Serve a database over gRPC and REST; `soardb serve --help` lists what can be set."""
    try:
        from soardb_service.cli import serve_main
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    raise typer.Exit(serve_main(context.args))


def keys(context: typer.Context) -> None:
    """Make, list and revoke the API keys of a server: add, list, revoke."""
    try:
        from soardb_service.cli import keys as program
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    program(args=context.args or ["--help"], prog_name="soardb keys", standalone_mode=False)


def _missing(error: ModuleNotFoundError) -> Unavailable:
    return Unavailable(f"the server needs more packages: {error}; pip install 'soardb[server]'")
