"""What the long tables have in common on the command line.

    parser = table_parser(__doc__, data="episodes, made where they are not there yet", work="caches and checkpoints")
    parser.add_argument("--only", help="one row of the table by its name")
    options = parsed(parser)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def table_parser(doc: str | None, **folders: str) -> argparse.ArgumentParser:
    """A parser with an option for each path, which are needed unless the table is only printed, and the common ones."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(needed=tuple(folders))
    for name, meaning in folders.items():
        parser.add_argument(f"--{name}", type=Path, help=meaning)
    parser.add_argument("--seed", type=int, action="append", help="of training; all of the table where not given")
    parser.add_argument("--part", default="0/1", help="which share of the runs, of how many")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--print", action="store_true", dest="show", help="the table as Markdown, of what is done")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options. Ends with a message where a path is missing that is needed to run."""
    options = parser.parse_args()
    missing = [f"--{name}" for name in options.needed if getattr(options, name) is None]
    if missing and not options.show:
        parser.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed to run")
    torch.set_num_threads(options.threads)
    return options
