"""What every part of a contract is made of: models that refuse unknown keys, and the words that they share."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Topic = Annotated[str, Field(pattern=r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*$", max_length=255)]
MessageType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Z][A-Za-z0-9]*$")]
Number = StrictFloat | StrictInt
Clock = Literal["header", "receive"]

JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
MULTI_ARRAY = "std_msgs/msg/Float64MultiArray"

# Pictures and clouds in all the forms in which they are recorded: the schema has no words for them yet.
IMAGE_TYPES = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/PointCloud2",
    "stereo_msgs/msg/DisparityImage",
    "theora_image_transport/msg/Packet",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
)

# Packages whose messages have no header: refused at once where the header clock needs one. Other types without a header
# are refused when their first message comes.
UNSTAMPED_PACKAGES = ("std_msgs",)


def finite(value: float, what: str) -> float:
    """`value` as a float; raises ValueError that names it where it is not finite."""
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}, expected a finite number")
    return float(value)


class Strict(BaseModel):
    """Unknown keys are refused: a misspelt limit must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Qos(Strict):
    """Quality of service of a subscription or publisher, in the words of rmw."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: int = Field(default=1000, ge=1, le=100_000)
    # 1000: two seconds of a 500 Hz stream; a reader that falls behind must not lose training data.
