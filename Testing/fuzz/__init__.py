"""Damaged and hostile files for every reader of the project: seeds, mutations, targets, and the loop that watches a child process."""
