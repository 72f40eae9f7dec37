"""The operator's side: signs releases and plans, and publishes them as static files."""
