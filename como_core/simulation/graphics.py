"""Which off-screen OpenGL MuJoCo renders with: EGL where the system has it, else OSMesa."""

from __future__ import annotations

import ctypes.util
import os
import sys

from como_core.errors import ComoError

# MuJoCo's name of a backend -> the system library it loads, best first.
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


class GraphicsError(ComoError):
    """Nothing on this machine can render without a screen."""


def select_backend() -> str:
    """Choose the backend and set MUJOCO_GL; call it before the first import of mujoco. A set MUJOCO_GL is kept.

    Raises GraphicsError, naming the remedy, where neither EGL nor OSMesa is there or MuJoCo came in first.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if not chosen:
        if "mujoco" in sys.modules:
            raise GraphicsError("mujoco was imported before it was told how to render without a screen; "
                                "import como_core.simulation.metaworld first, or set MUJOCO_GL=egl")
        found = [name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)]
        if not found:
            raise GraphicsError("no off-screen OpenGL library: libEGL and libOSMesa are both missing; "
                                "install one: sudo apt-get install -y libegl1 libgl1-mesa-dri (or libosmesa6)")
        chosen = found[0]
        os.environ["MUJOCO_GL"] = chosen
    return chosen


def explained(error: Exception) -> GraphicsError:
    """What went wrong when MuJoCo loaded the chosen backend or made its context, in words a user can act on."""
    chosen = os.environ.get("MUJOCO_GL", "")
    return GraphicsError(f"MuJoCo cannot render with MUJOCO_GL={chosen}: {type(error).__name__}: {error}; "
                         "`como doctor` says which backend works here and how to install one")
