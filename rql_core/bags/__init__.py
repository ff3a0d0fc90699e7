"""rosbag2 bags without ROS: write, repair, read, cut into episodes, convert to a dataset."""

from rql_core.bags.convert import convert
from rql_core.bags.reader import BagReader, bag_topics, find_bags, read_bag
from rql_core.bags.recover import recover_bag
from rql_core.bags.report import ConversionReport
from rql_core.bags.writer import BagWriter

__all__ = [
    "BagReader",
    "BagWriter",
    "ConversionReport",
    "bag_topics",
    "convert",
    "find_bags",
    "read_bag",
    "recover_bag",
]
