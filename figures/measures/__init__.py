"""What several claims measure with: worlds and policies by name, rollouts, updates, exact answers for the training loop."""
