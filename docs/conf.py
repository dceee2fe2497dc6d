"""Sphinx's configuration. `python -m docs` builds from a directory that it writes, not from this one."""

from vpnd import __version__

project = "vpnd"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.graphviz"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"vpnd {__version__}"
html_show_copyright = False
myst_heading_anchors = 3
nitpicky = True
graphviz_output_format = "svg"
