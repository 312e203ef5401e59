"""Prometheus: what it scrapes, the alerts, their tests, and its programs for a machine that has none installed."""
