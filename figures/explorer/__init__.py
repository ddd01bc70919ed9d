"""The explorer: one page with sliders, whose arithmetic is done in the page and compared with the library by tests."""
