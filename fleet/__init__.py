"""The operators side: signs, publishes, rolls out, judges, shows. Not built yet: docs/architecture.md."""
