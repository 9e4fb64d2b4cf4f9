"""What is predicted: rows of blanks, continuations and answers."""
