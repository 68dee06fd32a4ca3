"""The program: `prune`, or `python -m prune_cli`. Ctrl-C while it is loading ends it as quietly as later."""

import sys

from prune_cli.errors import PruneError


def main() -> None:
    """Load the command line and run it."""
    try:
        from prune_cli.main import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except PruneError as error:  # a kind whose file is broken, say: its options belong to the commands
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
