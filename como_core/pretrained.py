"""Where a pretrained model of `transformers` is: in a folder, or on the Hugging Face hub under a name OWNER/NAME."""

from __future__ import annotations

from pathlib import Path

from como_core.errors import ComoError


def pretrained_place(model: str, files: str) -> str:
    """`model` as `transformers` takes it, a folder or a name on the hub; ~ is the home folder.

    Raises ComoError for what can only be a path, where no folder is; it says that `files` are expected there.
    """
    path = Path(model).expanduser()
    is_path = model.startswith((".", "/", "~")) or model.rstrip("/").count("/") > 1 or path.is_file()
    if not is_path or path.is_dir():
        return str(path) if is_path else model
    found = "a file" if path.is_file() else "no folder"
    raise ComoError(f"{model}: {found} at {path.resolve()}; expected a folder with {files}, or a name on the Hugging "
                    "Face hub, OWNER/NAME")


def beside_the_hub(model: str) -> str:
    """Words for the refusal of a name on the hub that may have been meant as a folder; empty where it may not."""
    parent = Path(model).parent
    return f"no folder {model} is here, where {parent} is one; " if parent.name and parent.is_dir() else ""
