"""What a trained model says: blanks filled, text continued."""
