"""What is on disk: tokenised documents and what they are made of."""
