"""The things that learn: policies, the sampler, and the two gradient estimators. They never import `theory`."""
