"""The model: what a candidate's own words say, accept or decline, and how sure that is."""
