"""Files and hashes of initial values: writing, verifying, regenerating, fingerprints, agreement of ranks."""
