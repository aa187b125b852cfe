"""Releasing a whole dataset: inventory, one pure function per case, a ledger on disk, runners, versions, vault."""
