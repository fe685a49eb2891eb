"""Scores, one per module: `score(question)` is zero at best, about one where it starts to hurt."""
