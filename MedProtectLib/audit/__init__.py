"""The audit: does a model that is trained on the protected data fail on clean images? It trains victims and scores them."""
