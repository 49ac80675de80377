"""What a model shows besides its accuracies."""
