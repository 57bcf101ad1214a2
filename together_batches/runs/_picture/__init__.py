"""A run as a picture: lanes and bars, drawn as SVG and shown on an HTML page."""
