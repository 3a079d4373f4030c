"""The version, written here only (CMakeLists.txt and pyproject.toml read it from this line), and the format of the values."""

__version__ = "0.1.0"

FORMAT = 1  # see docs/numerics.md. A change of any value is a new format, never an edit
