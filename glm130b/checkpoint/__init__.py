"""What survives: save, verify, load into any layout."""
