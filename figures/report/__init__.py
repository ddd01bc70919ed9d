"""The report: one self-contained page, and the questions at its end."""
