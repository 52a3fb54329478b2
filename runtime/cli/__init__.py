"""The command line, one module a group of commands.

Errors that Perdure knows are one line on stderr and an exit code; any other exception is a bug and shows its traceback.
"""

import sys
from collections.abc import Sequence

import click

from perdure.runtime.cli.commands import Commands, unloaded
from perdure.runtime.cli.exits import EXPLAINED, Exit, Failure, code_of
from perdure.runtime.cli.output import print_line
from perdure.runtime.cli.streams import is_unwritable, prepare
from perdure.store.errors import PerdureError
from perdure.store.wording import brief, printable

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {text}" for code, text in EXPLAINED.items())


@click.group(
    cls=Commands,
    commands=unloaded(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="perdure")
def perdure() -> None:
    """Run workflows on a durable log, see what they do, and go on with them after a crash.

    Every command takes --db FILE (or PERDURE_DB) and --json.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Be the command `perdure`: run what the arguments ask for and exit the process.

    Raises:
        SystemExit: always, with one of the documented codes.
    """
    sys.exit(_call(arguments))


def _call(arguments: Sequence[str] | None) -> int:
    prepare()
    stdout = sys.stdout
    try:
        code = perdure.main(args=arguments, prog_name="perdure", standalone_mode=False)
    except click.ClickException as error:
        _say(error)
        return error.code if isinstance(error, Failure) else error.exit_code
    except PerdureError as error:
        print_line(f"error: {brief(printable(str(error)))}", "red", error=True)
        return code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except UnicodeEncodeError as error:
        if not all("\ud800" <= sign <= "\udfff" for sign in error.object[error.start : error.end]):
            raise
        print_line("error: what stands on the command line is no text: it has bytes that are no UTF-8", error=True)
        return Exit.USAGE
    except OSError as error:
        if not is_unwritable(error):
            raise
        print_line(f"error: stdout cannot be written to: {error.strerror}", "red", error=True)
        return Exit.FAILED
    except SystemExit:
        if sys.stdout is stdout:  # click puts another in its place when nobody reads it any more
            raise
        return Exit.UNREAD
    return code if isinstance(code, int) else Exit.OK


def _say(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    message = brief(printable(error.format_message()).removesuffix("."))
    print_line(f"error: {message}{hint}", "red", error=True)
