"""Stands in for a workbench: API v2 and the address that answers for deployed models."""
