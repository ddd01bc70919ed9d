"""Exact answers in token worlds: values, value gradients, costates at every prefix, the attention costate's error."""
