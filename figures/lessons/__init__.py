"""Lessons for a class: notebooks, exercises with checkable answers, and the pages that show them executed."""
