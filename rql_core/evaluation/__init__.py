"""How good a policy is: episodes, successes with intervals, reports."""
