"""One module for each subcommand of `costate`."""
