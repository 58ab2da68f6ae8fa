"""Reports as one HTML file: plain HTML, CSS and SVG that open anywhere, offline."""
