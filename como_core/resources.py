"""Files that come with the package (config/, launch/), wherever it is installed.

    interface = load_interface(resource("config/interfaces/metaworld.yaml"))

Works in a checkout (also `pip install -e` and `colcon build --symlink-install`), where the files lie beside
como_core, and below the install prefix of a wheel or of `colcon build`, where they lie in share/como_ros.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from como_core.errors import ComoError

PACKAGE = "como_ros"


def resource(name: str) -> Path:
    """The absolute path of a packaged file or folder, such as "config/motion/como.yaml".

    Raises ComoError, naming the places looked at, where there is none.
    """
    roots = list(_roots())
    for root in roots:
        if (root / name).exists():
            return root / name
    looked = ", ".join(str(root) for root in roots) or "no installed share folder"
    raise ComoError(f"{name}: no such file in {PACKAGE} (looked in {looked}); install the package again")


def resources(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Name -> path of the packaged files of a folder: resources("config/motion")["como"] is .../como.yaml."""
    return {path.stem: path for path in sorted(resource(folder).glob(pattern))}


def _roots() -> Iterator[Path]:
    module = Path(__file__).resolve()
    checkout = module.parents[1]
    if (checkout / "package.xml").is_file():
        yield checkout
    for prefix in module.parents[2:]:
        share = prefix / "share" / PACKAGE
        if share.is_dir():
            yield share
