"""The demonstration `rql demo`: the whole path from recording to a policy that is better than its data."""
