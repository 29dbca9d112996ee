"""The running service: schedules jobs, stores results, publishes events."""
