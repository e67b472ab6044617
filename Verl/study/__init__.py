"""The study as a whole: the declared design, its scripts, what it costs, and the runner that carries it out."""
