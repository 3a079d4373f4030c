"""Plans of models: entries, the plan itself, and what is done by one: filling, perturbing, restoring."""
