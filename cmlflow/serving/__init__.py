"""The one door to an endpoint."""
