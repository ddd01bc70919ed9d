"""Other people's losses: what they are, measured by their slopes and exact means."""
