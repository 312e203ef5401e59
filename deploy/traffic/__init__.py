"""Traffic as the upstream platforms make it: scenarios from a seed, what must come of them, and their publication."""
