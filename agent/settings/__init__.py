"""Settings of the agent, one file per group."""
