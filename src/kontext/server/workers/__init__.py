"""Worker processes that host the model: their protocol, and executors on this machine or on Ray."""
