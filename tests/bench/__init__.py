import stages  # noqa: F401 (first: it sets how OpenMP waits, for us and for the peers)
