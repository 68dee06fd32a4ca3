"""Run a command: what goes wrong in one line, an exit status, quiet libraries."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Sequence

import typer

from prune_cli.cli import app, tell
from prune_cli.errors import PruneError
from prune_cli.runtime import interrupt, processes

# what the system refuses is no bug of ours: told in one line
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
REFUSED = (*NO_SPACE, *NO_ACCESS, errno.EIO, errno.EMFILE)
# how safetensors and torch tell of a full disk, in exceptions of their own
NO_SPACE_IN_WORDS = (
    rf"\(os error ({'|'.join(map(str, NO_SPACE))})\)|inline_container.*(unexpected pos|failed writing)|iostream error"
    r"|failed with strerror: (No space left on device|Disk quota exceeded)"
)
NO_MEMORY_IN_WORDS = "DefaultCPUAllocator: can't allocate memory"  # torch's

INTERRUPTED = "interrupted: the same command again goes on from what is saved"


def main() -> None:
    """Run the command line and exit with its status."""
    hush()
    interrupt.listen()
    status = run(sys.argv[1:])
    processes.leave(status)
    sys.exit(status)


def hush() -> None:
    """Keep the libraries from talking on stderr, where no one has asked them to; before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors are raised as well
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore", FutureWarning)  # from one library to another: nothing a user can act on


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0 done, 1 expected error, 2 usage, 130 interrupted."""
    try:
        _check_encoding(arguments)
        status = app(arguments, prog_name="prune", standalone_mode=False) or 0
        if status == 130 and processes.tells(INTERRUPTED):
            tell(INTERRUPTED)
        sys.stdout.flush()
        return int(status)
    except PruneError as error:
        return _failed(error.message, error.hint, also=error.also)
    except typer.TyperException as error:  # wrong usage
        message = error.format_message().replace("Value error, ", "")
        if not message:  # no arguments at all: help was printed instead
            return error.exit_code
        context = getattr(error, "ctx", None)  # none where a command's own body complains
        command = context.command_path if context else f"prune {arguments[0]}"
        return _failed(message, f"{command} --help", error.exit_code)
    except processes.PeerLost:
        return _failed("another of the processes ended", "the same command again goes on from what is saved")
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        return 1
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _drop_output()
        return _failed(f"{error.filename or 'cannot write'}: {error.strerror}")
    except Exception as error:
        if isinstance(error, MemoryError) or re.search(NO_MEMORY_IN_WORDS, str(error)):
            told = " ".join(str(error).split("\n")[0].split())
            return _failed(f"not enough memory{f' ({told})' if told else ''}", "smaller rows, batches or options")
        if not re.search(NO_SPACE_IN_WORDS, str(error)):
            raise
        return _failed("cannot write: no space left", "the same command again goes on from what is saved")


def _check_encoding(arguments: Sequence[str]) -> None:
    """Raise PruneError for an argument whose bytes are no text: it could be written to no file that we make."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise PruneError(f"{argument}: an argument that is not UTF-8; allowed: UTF-8") from None


def _failed(message: str, hint: str | None = None, status: int = 1, also: Sequence[str] = ()) -> int:
    if not processes.tells(message):
        return status
    told = [f"error: {problem}" for problem in (message, *also)] + ([f"hint: {hint}"] if hint else [])
    for line in told:
        tell(" ".join(line.splitlines()))
    return status


def _drop_output() -> None:
    """Let what stdout could not take go nowhere: Python would try again at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
