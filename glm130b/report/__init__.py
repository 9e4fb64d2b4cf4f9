"""A run to look at afterwards: a page, and a dashboard."""
