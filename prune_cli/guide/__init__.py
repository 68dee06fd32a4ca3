"""The pages of the guide, which `prune guide TOPIC` prints."""

from __future__ import annotations

from importlib import resources

from prune_cli.errors import PruneError


def topics() -> list[str]:
    """The pages there are, in order of name."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".md") for file in files if file.name.endswith(".md"))


def page(topic: str) -> str:
    """A page of the guide. Raises PruneError if there is none of that name."""
    if topic not in topics():
        raise PruneError(f"topic: {topic}; allowed: {', '.join(topics())}")
    return resources.files(__package__).joinpath(f"{topic}.md").read_text("utf-8").rstrip()


def contents() -> str:
    """The list of pages, each with its title."""
    titles = {topic: page(topic).splitlines()[0].removeprefix("# ") for topic in topics()}
    width = max(map(len, titles), default=0)
    return "\n".join(["prune guide TOPIC", *(f"  {topic:<{width}}  {title}" for topic, title in titles.items())])
