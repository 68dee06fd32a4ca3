"""`python -m prune_cli`, the form that torchrun and accelerate launch."""

from prune_cli.cli import main

if __name__ == "__main__":
    main()
