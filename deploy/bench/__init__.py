"""`inmail bench`: what the guarantees cost, side by side in one run, and what the whole system sustains."""
