"""Pictures of a run: lanes and bars, as SVG and on an HTML page."""
