"""The inbox: the read model of all topics, its HTTP paths, and the state of each thread."""
