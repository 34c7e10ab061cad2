"""The target `real`: processes, owned by a warden."""
