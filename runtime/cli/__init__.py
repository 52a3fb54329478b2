"""The command line, one module a group of commands.

Errors that Perdure knows are one line on stderr and an exit code; any other exception is a bug and shows its traceback.
"""

import sys
from collections.abc import Sequence

import click

from perdure.runtime.cli.artifacts import artifacts
from perdure.runtime.cli.breakers import breakers
from perdure.runtime.cli.checking import check
from perdure.runtime.cli.exits import EXPLAINED, Exit, Failure, code_of
from perdure.runtime.cli.logs import log, tail
from perdure.runtime.cli.output import print_line, printable
from perdure.runtime.cli.people import answer, questions, signal
from perdure.runtime.cli.publishing import publish
from perdure.runtime.cli.queues import queues
from perdure.runtime.cli.reading import ps, show
from perdure.runtime.cli.runs import resume, run
from perdure.runtime.cli.servers import executor_server, sandbox_server, tool_server
from perdure.runtime.cli.slots import slots
from perdure.runtime.cli.starting import start
from perdure.runtime.cli.steering import fork, pause, retry
from perdure.runtime.cli.tools import tools
from perdure.runtime.cli.upkeep import doctor, verify
from perdure.runtime.cli.verdicts import cancel, settle
from perdure.store.errors import PerdureError

_COMMANDS = (
    run, start, resume, ps, show, log, tail, signal, publish, questions, answer, settle, cancel, pause, retry,
    fork, queues, tools, breakers, slots,
    artifacts, check, verify, doctor, tool_server, executor_server, sandbox_server,
)  # fmt: skip
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {text}" for code, text in EXPLAINED.items())


class _InOrder(click.Group):
    """Lists its commands as they are used, not by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their adding."""
        del ctx
        return list(self.commands)


@click.group(
    cls=_InOrder,
    commands={command.name or "": command for command in _COMMANDS},
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
    try:
        code = perdure.main(args=arguments, prog_name="perdure", standalone_mode=False)
    except click.ClickException as error:
        _say(error)
        return error.code if isinstance(error, Failure) else error.exit_code
    except PerdureError as error:
        print_line(f"error: {printable(str(error))}", "red", error=True)
        return code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.OK


def _say(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    message = printable(error.format_message()).removesuffix(".")
    print_line(f"error: {message}{hint}", "red", error=True)
