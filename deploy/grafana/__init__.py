"""Grafana: one dashboard for each audience, built as code; `dashboards/` holds what `generate` writes."""
