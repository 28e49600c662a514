"""Make an off-screen OpenGL context and print the renderer: `python gl_probe.py egl|osmesa`.

Makes the contexts that MuJoCo makes (mujoco/egl, mujoco/osmesa), with nothing but the standard library, so that it
runs before anything is installed. A program of its own, because a broken driver may end the process that asks.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

_EGL_PLATFORM_DEVICE = 0x313F
_EGL_OPENGL_API = 0x30A2
_EGL_CONFIG = (
    0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8,  # red, green, blue and alpha bits
    0x3025, 24, 0x3026, 8,                       # depth and stencil bits
    0x3033, 0x0001, 0x3040, 0x0008,              # a pbuffer surface that OpenGL can draw to
    0x3038,
)
_GL_RENDERER = 0x1F01
_GL_RGBA, _GL_FLOAT = 0x1908, 0x1406
_MAX_DEVICES = 16


def egl_renderer() -> str:
    """Make an EGL context on the first device that can and return its GL_RENDERER. Raises OSError."""
    egl = _load("EGL")
    _load("OpenGL", "GL")
    for name in ("eglGetProcAddress", "eglCreateContext"):
        getattr(egl, name).restype = ctypes.c_void_p
    display = _egl_display(egl)
    config, count = ctypes.c_void_p(), ctypes.c_int()
    wanted = (ctypes.c_int * len(_EGL_CONFIG))(*_EGL_CONFIG)
    egl.eglChooseConfig(ctypes.c_void_p(display), wanted, ctypes.byref(config), 1, ctypes.byref(count))
    if count.value < 1:
        raise OSError("EGL has no framebuffer configuration for OpenGL")
    egl.eglBindAPI(_EGL_OPENGL_API)
    context = egl.eglCreateContext(ctypes.c_void_p(display), config, None, None)
    if not context or not egl.eglMakeCurrent(ctypes.c_void_p(display), None, None, ctypes.c_void_p(context)):
        raise OSError("EGL cannot make an OpenGL context")
    return _renderer(egl.eglGetProcAddress(b"glGetString"))


def osmesa_renderer() -> str:
    """Make an OSMesa context and return its GL_RENDERER. Raises OSError."""
    mesa = _load("OSMesa")
    for name in ("OSMesaCreateContextExt", "OSMesaGetProcAddress"):
        getattr(mesa, name).restype = ctypes.c_void_p
    size = 64
    context = mesa.OSMesaCreateContextExt(_GL_RGBA, 24, 8, 0, None)
    pixels = (ctypes.c_float * (size * size * 4))()
    if not context or not mesa.OSMesaMakeCurrent(ctypes.c_void_p(context), pixels, _GL_FLOAT, size, size):
        raise OSError("OSMesa cannot make an OpenGL context")
    return _renderer(mesa.OSMesaGetProcAddress(b"glGetString"))


def _load(*names: str) -> ctypes.CDLL:
    found = next(filter(None, map(ctypes.util.find_library, names)), None)
    if found is None:
        raise OSError(f"lib{' and lib'.join(names)} not found")
    return ctypes.CDLL(found, mode=ctypes.RTLD_GLOBAL)


def _egl_display(egl: ctypes.CDLL) -> int:
    """The first device's display that initialises; off screen there is no default display."""
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    platform_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not platform_display:
        raise OSError("this EGL cannot render without a screen (no EGL_EXT_platform_device)")
    devices, count = (ctypes.c_void_p * _MAX_DEVICES)(), ctypes.c_int()
    ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query)(
        _MAX_DEVICES, ctypes.cast(devices, ctypes.c_void_p), ctypes.addressof(count))
    display_of = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(platform_display)
    for device in devices[:count.value]:
        display = display_of(_EGL_PLATFORM_DEVICE, device, None)
        if display and egl.eglInitialize(ctypes.c_void_p(display), None, None):
            return int(display)
    raise OSError(f"none of {count.value} EGL devices initialises: a driver is missing")


def _renderer(get_string: int | None) -> str:
    if not get_string:
        raise OSError("the OpenGL library lacks glGetString")
    text = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(get_string)(_GL_RENDERER)
    if not text:
        raise OSError("the OpenGL context names no renderer")
    return text.decode(errors="replace")


if __name__ == "__main__":
    try:
        print({"egl": egl_renderer, "osmesa": osmesa_renderer}[sys.argv[1]]())
    except OSError as error:
        sys.exit(str(error))
