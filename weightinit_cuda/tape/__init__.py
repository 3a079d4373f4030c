"""The tape that ``deferred()`` records, and what becomes of it: docs/deferred.md has the picture."""
