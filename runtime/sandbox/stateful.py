"""`bash_stateful` without a session: every call is a process of its own that brings the shell of the call before back.

`script` makes the argument vector of such a process; it runs nothing. What lives on is a file in the slot's `run`
folder that only commands in the slot ever read, so that a hostile one gains what its author could do anyway. Kept are
the directory, variables (exported or not), functions, aliases, shell options and the umask. Not kept are background
processes, open files, traps, `readonly` of bash's own variables, and the history.

- The state is replaced at the end of a call at once, or not at all: one that is killed, times out or dies of a signal
  leaves the state of before, and so does one that ends in `exec`, or in an `exit` under an EXIT trap of its own.
- `exit 3` keeps the state and is the exit code, as `set -e` is where it ends the command.
- A directory that is gone by the next call is replaced by the workspace, and stderr says so.
- A state that cannot be read is dropped, and stderr says so.
"""

import shutil
import string

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.jail import Inside
from perdure.store.errors import UsageError

STATE_NAME = "shell.state"
"""In the slot's `run` folder; delete it there to start anew."""

MAX_COMMAND_BYTES = 131_071
"""Linux takes no longer argument (MAX_ARG_STRLEN, with its NUL)."""

# Everything is written to the file by builtins, without a subshell: forks may be used up, and `set -e` is off in some
# subshells. Only the rename needs a program, found without the shell's PATH. The file is there before the command can
# set an umask. It is sourced at the top level, as `declare` makes local variables in a function. Functions come after
# what they could replace, and are read while no alias is expanded. Nothing is parsed after the command if that can be
# helped: bash 5.2 corrupts its memory then, once the command (or a broken state, hence `exec`) had an open `$(`. Our
# names begin with `__perdure_`.
_PROLOGUE = r"""
__perdure_command=$2 __perdure_state=$3 __perdure_home=$4 __perdure_set= __perdure_prefix= __perdure_saved=
__perdure_arguments=("$@")
set --
: >| "$__perdure_state.new"
__perdure_die() { trap - EXIT "$1"; kill -s "$1" "$BASHPID"; }
__perdure_save() {
  \builtin local __perdure_bad= __perdure_name
  __perdure_saved=1
  \builtin trap - DEBUG ERR RETURN
  \builtin trap '' PIPE XFSZ
  {
    \builtin shopt -p && \builtin printf '%s\n' '\builtin shopt -u expand_aliases' || __perdure_bad=1
    \builtin shopt -u nocasematch
    \builtin printf '__perdure_clear\n'
    for __perdure_name in %NAMES%; do
      case $__perdure_name in
        __perdure_*|BASH|BASH_*|BASHOPTS|BASHPID|COMP_*|DIRSTACK|EPOCH*|EUID|FUNCNAME|GROUPS|HISTCMD|LINENO|\
        PIPESTATUS|PPID|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|UID|_) ;;
        *) \builtin declare -p "$__perdure_name" || __perdure_bad=1 ;;
      esac
    done
    \builtin alias -p || __perdure_bad=1
    \builtin umask -p || __perdure_bad=1
    \builtin unset -f __perdure_die __perdure_save __perdure_clear __perdure_options __perdure_go
    \builtin declare -f && \builtin declare -Fx || __perdure_bad=1
    \builtin shopt -q expand_aliases && \builtin printf '%s\n' '\builtin shopt -s expand_aliases'
    \builtin printf '__perdure_directory=%q\n__perdure_set=%q\n' "$PWD" "$__perdure_set" || __perdure_bad=1
  } >| "$__perdure_state.new" || __perdure_bad=1
  if [[ $__perdure_bad ]] || ! \builtin command -p mv -f -- "$__perdure_state.new" "$__perdure_state"; then
    \builtin echo 'bash_stateful: the state of the shell could not be saved; the next call sees the state of before' >&2
  fi
}
__perdure_clear() {
  \builtin local __perdure_name
  for __perdure_name in %NAMES%; do
    [[ ${!__perdure_name@a} != *x* ]] || \builtin unset -v "$__perdure_name"
  done
}
__perdure_options() {
  \builtin local IFS=: option
  for option in braceexpand hashall interactive-comments; do
    [[ :$1: == *:$option:* ]] || \builtin set +o "$option"
  done
  for option in $1; do
    case $option in
      braceexpand|hashall|interactive-comments|noexec|onecmd|privileged) ;;
      xtrace) __perdure_prefix='set -x; ' ;;
      *) \builtin set -o "$option" ;;
    esac
  done
}
__perdure_go() {
  \builtin local __perdure_old=${OLDPWD-}
  if [[ ${__perdure_directory+set} ]] && ! \builtin cd -- "$__perdure_directory" 2>/dev/null; then
    \builtin echo "bash_stateful: $__perdure_directory is gone; going on in $__perdure_home" >&2
    \builtin cd -- "$__perdure_home"
  fi
  OLDPWD=$__perdure_old
}
shopt -s expand_aliases
if [[ -f $__perdure_state && ! ${__perdure_arguments[4]-} ]]; then
  . "$__perdure_state" || {
    \builtin echo 'bash_stateful: the state of the shell could not be read and is dropped' >&2
    \builtin exec "$BASH" --noprofile --norc -c "$BASH_EXECUTION_STRING" bash "${__perdure_arguments[@]:0:4}" anew
  }
fi
\__perdure_go
for __perdure_signal in HUP INT QUIT PIPE ALRM TERM XCPU XFSZ USR1 USR2; do
  \builtin trap "__perdure_die $__perdure_signal" "$__perdure_signal"
done
\builtin trap '{ __perdure_code=$?; [[ $__perdure_saved ]] || {
  __perdure_set=$SHELLOPTS; \builtin set +evxuCf -B +o posix; }; } 2>/dev/null
  [[ $__perdure_saved ]] || { __perdure_save; \builtin exit "$__perdure_code"; }' EXIT
[[ ! $__perdure_set ]] || \__perdure_options "$__perdure_set"
""".replace("%NAMES%", " ".join(f'"${{!{first}@}}"' for first in "_" + string.ascii_letters))
# On one line, so that what bash says of the command counts its lines from 1. The command has ended without `exit`: the
# state is saved here, as the EXIT trap may be the command's own by now, which `exit` runs.
_PROGRAM = (
    r'eval "$1"; \builtin eval "$__perdure_prefix$__perdure_command"; '
    r"{ __perdure_code=$? __perdure_set=$SHELLOPTS; \builtin set +evxuCf -B +o posix; } 2>/dev/null; "
    r'__perdure_save; \builtin exit "$__perdure_code"'
)


def script(command: str, inside: Inside) -> list[str]:
    """Return the argument vector that runs *command* in the shell that the call before left; *inside* the slot's jail.

    Calls of one slot must not overlap. The exit code is the command's.

    Raises:
        SandboxUnavailableError: there is no bash.
        UsageError: no shell can be given this command.
    """
    if shutil.which("bash") is None:
        raise SandboxUnavailableError(detail="bash_stateful needs bash, which is not here: install it, or use bash")
    check_command(command)
    state = f"{inside.run}/{STATE_NAME}"
    return ["bash", "--noprofile", "--norc", "-c", _PROGRAM, "bash", _PROLOGUE, command, state, inside.workspace]


def check_command(command: str) -> None:
    """Do nothing if *command* can be an argument of a process.

    Raises:
        UsageError: it cannot; says why.
    """
    try:
        size = len(command.encode("utf-8"))
    except UnicodeEncodeError:
        raise UsageError("the command is not valid text: it holds half of a surrogate pair") from None
    if "\0" in command:
        raise UsageError("the command holds a NUL character, which no program can be given")
    if size > MAX_COMMAND_BYTES:
        raise UsageError(f"the command is {size} bytes long, at most {MAX_COMMAND_BYTES} fit: write it to a file first")
