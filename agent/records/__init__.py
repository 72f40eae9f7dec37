"""agent.db: what the agent must not forget, one file per group of tables."""
