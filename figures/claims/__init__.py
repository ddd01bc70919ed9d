"""One file for each claim, in the four parts of the suite; `figures.harness.registry` lists them."""
