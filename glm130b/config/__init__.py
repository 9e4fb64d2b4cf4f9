"""What a run is. Imports nothing of ours."""
