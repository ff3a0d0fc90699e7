"""The JSON Schema of a contract, with which editors complete its keys, explain them, and mark mistakes."""

from __future__ import annotations

from typing import Any

from rql_core.contract.schema import Contract

#: Of keys that mean the same wherever they stand and have no description of their own there; `Model.key` comes first.
DESCRIPTIONS = {
    "Action.features": "the numbers of the action, in their order",
    "ActionFeature.name": "its name: the joint's, as messages have it",
    "action": "what is commanded, and within which limits",
    "align": "how messages, which come at their own times, are brought to the ticks",
    "boundary": "what starts an episode",
    "by": "which kind this is",
    "command": "what the numbers of the action command",
    "depth": "messages that are kept for a reader that falls behind",
    "description": "the robot and the task in a sentence; it becomes the dataset's description",
    "durability": "transient_local: a subscriber that comes later still gets the last messages",
    "end": "what the end of an episode there means: terminal (nothing comes after) or truncation (the task went on)",
    "episodes": "how recorded time is cut into episodes, and what the end of one means",
    "features": "named blocks of numbers, in the order in which they stand in the vector",
    "fields": "paths to the numbers in a message, such as pose.position.x, data[3], or position.elbow_joint",
    "lower": "lower limit, in the action's unit; it is -1 for the policy",
    "method": "the kind of alignment",
    "name": "its name: letters, digits and underscores",
    "observation": "what is observed, from which topics",
    "qos": "quality of service with which it is subscribed to, or published",
    "reliability": "reliable: lost messages are sent again; best_effort: they are not",
    "reward": "how good a step was, and when the task is solved",
    "schema": "version of this form of contracts",
    "seconds": "s",
    "topic": "name of the topic, as in the ROS graph and in bags",
    "topics": "the topics that are observed, in the order in which they stand in the vector",
    "type": "message type, such as sensor_msgs/msg/JointState",
    "unit": "unit of the numbers, such as rad, m/s or 1; it is for people and reports",
    "upper": "upper limit, in the action's unit; it is 1 for the policy",
}


def contract_schema() -> dict[str, Any]:
    """The schema (draft 2020-12), in which every key has a description.

    What only the whole shows, such as a name that is there twice, it cannot say: `rql contract check` does.
    """
    schema = Contract.model_json_schema(by_alias=True)
    for name, model in {"Contract": schema, **schema["$defs"]}.items():
        for key, part in model.get("properties", {}).items():
            description = DESCRIPTIONS.get(f"{name}.{key}", DESCRIPTIONS.get(key))
            if "description" not in part and description is not None:
                part["description"] = description
            # pydantic makes titles of the keys, which say nothing more and hide the description in some editors.
            part.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
