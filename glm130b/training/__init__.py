"""What happens over time: schedules, loop, hooks, metrics."""
