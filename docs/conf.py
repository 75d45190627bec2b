"""Sphinx's settings: `make docs` takes every warning for an error; neither the build nor a page needs a network."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures must not depend on how many cores there are

project = "wellfit"
version = release = installed_version("wellfit")
copyright = "the wellfit authors; Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery", "plain_docstrings"]
exclude_patterns = ["_build", "_extensions", "gallery"]
myst_heading_anchors = 3
default_role = "code"
smartquotes = False  # docstrings quote what is typed
suppress_warnings = ["misc.highlighting_failure"]  # contracts are written in shorthand that no lexer knows

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_title = "wellfit"
html_static_path = ["_static"]
html_css_files = ["wellfit.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
templates_path: list[str] = []

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "subsection_order": ["gallery/networks", "gallery/optimisation", "gallery/regularisation", "gallery/transfer"],
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "thumbnail_size": (400, 280),
}
