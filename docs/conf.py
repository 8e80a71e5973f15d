"""Sphinx settings of the documentation: `make docs` builds it into docs/_build without the network."""

import sys
from pathlib import Path

from recipes.command_line import quiet_tensorflow

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
with quiet_tensorflow():
    import keras  # noqa: F401 - imported here, where its start-up messages are held back

project = "keras-recipes"
author = "the keras-recipes authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "matplotlib.sphinxext.plot_directive",
    "generated_reference",
]
exclude_patterns = ["_build"]
root_doc = "index"

html_theme = "furo"
html_title = "keras-recipes"
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

plot_formats = [("png", 150)]
plot_html_show_formats = False
plot_html_show_source_link = False
