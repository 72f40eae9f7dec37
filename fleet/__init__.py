"""The operator's side: signs, publishes, rolls out, judges, shows. Not built yet."""
