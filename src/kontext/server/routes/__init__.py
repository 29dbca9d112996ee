"""The dialects of the service, one file each."""
