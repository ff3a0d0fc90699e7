"""Off-screen pictures of a world, opened only when somebody asks for one.

Physics must run where there is no OpenGL at all, so nothing here is touched at import, and the context is made by hand:
MuJoCo chooses its own when it is imported, and without MUJOCO_GL that is GLFW, which needs a display.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from rql_core.errors import SimulationError
from rql_core.sim.world import CAMERA


def _open_context(width: int, height: int) -> Any:
    """OpenGL context that MUJOCO_GL asks for; EGL (which needs no display) where it says nothing."""
    if sys.platform == "linux" and os.environ.get("MUJOCO_GL", "egl").lower() in ("", "egl"):
        from mujoco.egl import GLContext  # here, because it fails where libEGL is missing

        return GLContext(width, height)
    return mujoco.GLContext(width, height)


class OffscreenRenderer:
    """Draws one model. Owns an OpenGL context: use it from the thread that made it, and close it there.

    Multisampling, shadows and reflections are off: in software they make a frame ten times slower.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Open the context. Raises SimulationError when there is no OpenGL."""
        self._model = model
        self._pixels = np.zeros((height, width, 3), dtype=np.uint8)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.offsamples = 0
        try:
            self._context = _open_context(width, height)
            self._context.make_current()
            self._painter = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # the OpenGL bindings raise ImportError, AttributeError, RuntimeError and their own
            raise SimulationError(
                f"no picture of the world: OpenGL could not be opened (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: "
                f"{type(error).__name__}: {error}); install libegl1 and PyOpenGL, or run without render_mode"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._painter)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=500)  # both worlds draw fewer than 150 shapes
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = model.camera(CAMERA).id

    def draw(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Picture of a state, `(height, width, 3)` uint8, a new array each time."""
        self._context.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._painter)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._painter)
        return np.ascontiguousarray(self._pixels[::-1])  # OpenGL counts rows from below

    def close(self) -> None:
        """Free the context."""
        self._context.make_current()
        self._painter.free()
        self._context.free()
