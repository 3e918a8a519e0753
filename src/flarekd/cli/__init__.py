"""The command line: parse, load the configuration, call one stage. No logic, no torch at start."""

from __future__ import annotations

from typing import Annotated

import typer

from flarekd import __version__
from flarekd.cli import data, models, roads, training, using
from flarekd.cores import sleep_while_waiting
from flarekd.failures import Verbs

app = typer.Typer(
    name="flarekd",
    cls=Verbs,
    help="Abdominal CT: from partly labelled scans to a small model for 13 organs and tumours.\n\n"
    "Research software, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from flarekd import console

        console.result(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit


# the order here is the order of --help
app.command()(roads.demo)
app.command()(roads.run)
app.command()(data.phantom)
app.command()(data.check)
app.command("group-data")(data.group_data)
app.command("train-teacher")(training.train_teacher)
app.command("pseudo-tumor")(training.pseudo_tumor)
app.command("pseudo-organs")(training.pseudo_organs)
app.command()(training.fuse)
app.command()(data.review)
app.command("train-student")(training.train_student)
app.command()(using.infer)
app.command()(using.evaluate)
app.command()(using.rank)
app.command(context_settings={"allow_interspersed_args": False})(using.bench)
app.command()(models.export)
app.command("import-nnunet")(models.import_nnunet)


def main() -> None:
    """Run the command line."""
    sleep_while_waiting()
    app()
