"""Exercises of the lessons, one module for each lesson: what is asked, the exact answer, and what common mistakes give."""
