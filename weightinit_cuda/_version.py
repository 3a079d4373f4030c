"""The version, written here only: CMakeLists.txt and pyproject.toml read it from this line."""

__version__ = "0.1.0"
