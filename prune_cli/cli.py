"""The command line: every command, as options -> one call, its result on stdout, messages on stderr, an exit status.

Nothing heavy is imported here: each command imports what it needs when it runs, so that help is quick.
"""

from __future__ import annotations

# help lists the commands in the order in which they are imported
# isort: off
from prune_cli.commands import stages, look, pipeline
from prune_cli.commands.app import app, tell

__all__ = ["app", "look", "pipeline", "stages", "tell"]
