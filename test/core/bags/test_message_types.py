"""Types that are no standard ones: defined in the bag, by files that the caller names, or nowhere."""

from pathlib import Path

import pytest
import synthetic
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rql_core.bags import BagReader, BagWriter, find_bags, read_bag, recover_bag
from rql_core.errors import BagError

TOPICS = synthetic.topics_of(synthetic.record(1).contract)
POSE = {"/tool_pose": TOPICS["/tool_pose"]}
GRIPPER = "my_robot/msg/Gripper"


def gripper_bag(path: Path, definition: str, values: dict[str, float], embedded: bool = True) -> Path:
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition, GRIPPER))
    with BagWriter(path) as writer:
        writer.add_defined_topic("/gripper", GRIPPER, definition if embedded else "", "", [])
        writer.write("/gripper", 5, store.serialize_cdr(store.types[GRIPPER](**values), GRIPPER))
    return path


def test_an_unknown_type_is_named_with_what_helps(tmp_path: Path) -> None:
    bag = gripper_bag(tmp_path / "bag", "float64 grip\n", {"grip": 0.5}, embedded=False)
    with pytest.raises(BagError, match=r"/gripper: my_robot/msg/Gripper cannot be decoded: .*message_definitions"):
        list(read_bag(bag, {"/gripper": GRIPPER}))


def test_an_unknown_type_beside_what_is_wanted_does_no_harm(tmp_path: Path) -> None:
    recording = synthetic.record(3)
    with BagWriter(tmp_path / "bag") as writer:
        synthetic.fill(writer, recording)
        writer.add_defined_topic("/gripper", GRIPPER, "", "", [])
        writer.write("/gripper", recording.stamp(1), b"\x00\x01\x00\x00\x07")
    assert len(list(read_bag(tmp_path / "bag", TOPICS))) == 10
    assert recover_bag(tmp_path / "bag", tmp_path / "copy").messages == 11
    assert len(list(read_bag(tmp_path / "copy", TOPICS))) == 10


@pytest.mark.parametrize("form", ["file", "package", "folder"])
def test_a_definition_that_the_caller_names_is_used(tmp_path: Path, form: str) -> None:
    bag = gripper_bag(tmp_path / "bag", "float64 grip\n", {"grip": 0.5}, embedded=False)
    folder = tmp_path / ("my_robot/msg" if form != "folder" else "my_robot")
    folder.mkdir(parents=True)
    (folder / "Gripper.msg").write_text("float64 grip  # 0 to 1\n")
    named = {"file": folder / "Gripper.msg", "package": tmp_path, "folder": folder}[form]
    ((_, _, message),) = read_bag(bag, {"/gripper": GRIPPER}, [named])
    assert message.grip == 0.5


def test_definitions_may_be_made_of_each_other_and_of_standard_ones(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "some-checkout"
    folder.mkdir(parents=True)
    (folder / "package.xml").write_text("<package><name>my_robot</name></package>")
    (folder / "Gripper.msg").write_text("Finger[2] fingers\nstd_msgs/Header header\n")
    (folder / "Finger.msg").write_text("float64 angle\n")
    text = "Finger[2] fingers\nstd_msgs/Header header\n"
    parts = {
        "my_robot/Finger": "float64 angle\n",
        "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id\n",
    }
    full = text + "".join(f"{'=' * 80}\nMSG: {name}\n{body}" for name, body in parts.items())
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(full, GRIPPER))
    fingers = [store.types["my_robot/msg/Finger"](angle) for angle in (0.5, 0.75)]
    message = store.types[GRIPPER](fingers, synthetic.header(7))
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_defined_topic("/gripper", GRIPPER, "", "", [])
        writer.write("/gripper", 5, store.serialize_cdr(message, GRIPPER))
    ((_, _, read),) = read_bag(tmp_path / "bag", {"/gripper": GRIPPER}, [folder])
    assert ([finger.angle for finger in read.fingers], read.header.stamp.nanosec) == ([0.5, 0.75], 7)
    (folder / "Finger.msg").unlink()
    with pytest.raises(BagError, match=r"/gripper: .*my_robot/msg/Finger is no standard type"):
        list(read_bag(tmp_path / "bag", {"/gripper": GRIPPER}, [folder]))


def test_the_definition_in_the_bag_comes_before_the_one_that_is_named(tmp_path: Path) -> None:
    bag = gripper_bag(tmp_path / "bag", "float64 grip\n", {"grip": 0.5})
    (tmp_path / "my_robot").mkdir()
    (tmp_path / "my_robot" / "Gripper.msg").write_text("float32 other\n")
    ((_, _, message),) = read_bag(bag, {"/gripper": GRIPPER}, [tmp_path / "my_robot"])
    assert message.grip == 0.5


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("absent.msg", None, "absent.msg: does not exist"),
        ("folder", None, "folder: has no message definition"),
        ("Gripper.txt", "float64 grip", "Gripper.txt: has no message definition"),
        ("Gripper.msg", "float64 grip\n[no definition]\n", "Gripper.msg: is no message definition"),
        ("Gripper.msg", "x" * 1_000_001, "Gripper.msg: 1000001 bytes, expected"),
    ],
)
def test_definitions_that_are_none_are_named(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(BagError, match=reason):
        BagReader(tmp_path, [tmp_path / name])


def test_a_definition_that_is_there_twice_must_be_the_same(tmp_path: Path) -> None:
    for folder, text in (("a", "float64 grip\n"), ("b", "float64 grip\n"), ("c", "float32 grip\n")):
        (tmp_path / folder / "my_robot" / "msg").mkdir(parents=True)
        (tmp_path / folder / "my_robot" / "msg" / "Gripper.msg").write_text(text)
    BagReader(tmp_path, [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(BagError, match=r"c.my_robot.msg.Gripper.msg: type my_robot/msg/Gripper is also in .*b"):
        BagReader(tmp_path, [tmp_path / "b", tmp_path / "c"])


def test_a_definition_that_changed_between_bags_is_read_as_each_bag_has_it(tmp_path: Path) -> None:
    old = gripper_bag(tmp_path / "old", "float64 grip\n", {"grip": 0.5})
    new = gripper_bag(tmp_path / "new", "float32 force\nfloat64 grip\n", {"force": 2.0, "grip": 0.75})
    read = [message.grip for bag in (old, new, old) for _, _, message in read_bag(bag, {"/gripper": GRIPPER})]
    assert read == [0.5, 0.75, 0.5]


def test_a_topic_whose_type_changed_between_bags_names_the_bag(tmp_path: Path) -> None:
    recording = synthetic.record(3)
    recording.write(tmp_path / "day" / "a")
    with BagWriter(tmp_path / "day" / "b") as writer:
        writer.add_topic("/tool_pose", "geometry_msgs/msg/Pose")
    good, changed = find_bags([tmp_path / "day"])
    assert len(list(read_bag(good, POSE))) == 3
    with pytest.raises(BagError, match=r"day/b: topic /tool_pose has geometry_msgs/msg/Pose, expected .*PoseStamped"):
        list(read_bag(changed, POSE))
