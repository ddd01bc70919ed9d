"""The training loop: settings, tasks, several policies at once, and pretraining on a corpus."""
