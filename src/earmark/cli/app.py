"""The list of commands, and what happens to their errors."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from earmark import __version__
from earmark.cli import PASSED, UNUSABLE, challenges
from earmark.cli.auditing import audit
from earmark.cli.calibration import calibrate
from earmark.cli.classifying import classify, train
from earmark.cli.doctor import doctor
from earmark.cli.plugins import families, models, scenarios
from earmark.cli.recording import canonicalise, record, request
from earmark.cli.reporting import compare, report
from earmark.cli.responses import convert
from earmark.cli.studying import study
from earmark.cli.verifying import draw, verify

COMMANDS = (
    canonicalise,
    request,
    record,
    audit,
    calibrate,
    study,
    report,
    compare,
    train,
    classify,
    draw,
    verify,
    convert,
    families,
    models,
    scenarios,
    doctor,
)
"""The commands in the order of the help; each has the name of its function."""

GROUPS = {"challenges": challenges.app}
"""Commands with commands of their own."""

app = typer.Typer(
    name="earmark",
    help="Tells which speech-recognition model really transcribed your audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EARMARK"},
)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for command in COMMANDS:
    app.command()(command)

# typer may bring its own copy of click, so the base of its errors is reached through one of them
CLICK_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(arguments, prog_name="earmark", standalone_mode=False)
        return int(code or PASSED)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except typer.Abort:
        return UNUSABLE
    except CLICK_ERROR as error:
        print(f"earmark: {error.format_message().rstrip('.')}; see `earmark --help`", file=sys.stderr)
        return UNUSABLE


def _version(wanted: bool) -> None:
    if wanted:
        print(f"earmark {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Tells which speech-recognition model really transcribed your audio."""
