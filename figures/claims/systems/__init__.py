"""Claims on the systems that the paper builds on or is compared with."""
