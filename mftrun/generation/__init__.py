"""Text from a trained model: prompts rendered as in training, batched answers, a chat."""
