"""Where checkpoints go: the policy, the candidates and their worth, what is legal, the plan."""
