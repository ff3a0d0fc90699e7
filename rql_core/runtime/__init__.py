"""What runs at deployment, without ROS: the policy, when it plans, and the filter that every command passes."""
