"""What all pages share: the frame, the colours, light and dark, and how a template is filled."""
