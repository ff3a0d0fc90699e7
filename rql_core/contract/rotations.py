"""Rotations as features: from unit quaternions (x, y, z, w, as in geometry_msgs/Quaternion) to numbers to learn from.

A quaternion and its negative are the same rotation, so none of these depends on the sign. Written for one rotation at a
time: at a tick there are a few, and plain floats are faster than arrays of four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Quaternion = tuple[float, float, float, float]

# Drivers that round to two decimals are off by 0.01; an orientation that nobody set has norm 0.
NORM_TOLERANCE = 0.02

# Below this angle between two quaternions (rad) sin(x) / x is 1 to the last bit, and dividing by it would not be safe.
_SMALL_ANGLE = 1e-8


def unit(quaternion: Sequence[float]) -> Quaternion:
    """The quaternion with norm 1. Raises ValueError when it is further than NORM_TOLERANCE from that."""
    x, y, z, w = quaternion
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not abs(norm - 1.0) <= NORM_TOLERANCE:
        raise ValueError(
            f"quaternion ({x:g}, {y:g}, {z:g}, {w:g}) has norm {norm:g}, expected 1 within {NORM_TOLERANCE}; "
            "is the orientation set, and in the order x, y, z, w?"
        )
    return x / norm, y / norm, z / norm, w / norm


def between(first: Sequence[float], second: Sequence[float]) -> Quaternion:
    """The rotation from `first` to `second`, seen from `first`: conjugate(first) * second."""
    ax, ay, az, aw = -first[0], -first[1], -first[2], first[3]
    bx, by, bz, bw = second
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def six_numbers(quaternion: Sequence[float]) -> tuple[float, ...]:
    """The first two columns of the rotation matrix, one after the other.

    Continuous over all rotations (Zhou et al. 2019, "On the Continuity of Rotation Representations").
    """
    x, y, z, w = quaternion
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y + z * w),
        2 * (x * z - y * w),
        2 * (x * y - z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z + x * w),
    )


def rotation_vector(quaternion: Sequence[float]) -> tuple[float, ...]:
    """Axis times angle, rad, the angle in [0, pi]. At pi the axis may point either way."""
    x, y, z, w = quaternion
    if w < 0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < _SMALL_ANGLE else 2.0 * math.atan2(sine, w) / sine
    return x * scale, y * scale, z * scale


def yaw(quaternion: Sequence[float]) -> float:
    """The angle about z of the axes z, y', x'' (REP 103's yaw), rad, in [-pi, pi]."""
    x, y, z, w = quaternion
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi]."""
    return math.remainder(angle, 2 * math.pi)


def slerp(first: Sequence[float], second: Sequence[float], share: float) -> Quaternion:
    """`share` (0 to 1) of the shortest way from `first` to `second` at a constant rate, with norm 1."""
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    sign = -1.0 if dot < 0 else 1.0
    # By the sine and not the cosine, which cannot tell small angles apart.
    apart = math.sqrt(sum((b * sign - a) ** 2 for a, b in zip(first, second, strict=True)))
    angle = 2.0 * math.asin(min(1.0, apart / 2.0))
    if angle < _SMALL_ANGLE:
        left, right = 1.0 - share, share
    else:
        left, right = (math.sin(part * angle) / math.sin(angle) for part in (1.0 - share, share))
    x, y, z, w = (left * a + right * sign * b for a, b in zip(first, second, strict=True))
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    return x / norm, y / norm, z / norm, w / norm
