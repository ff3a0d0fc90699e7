"""The ROS 2 nodes: subscriptions, timers, services and parameters round the classes of rql_core."""
