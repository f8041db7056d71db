"""From logits to text: sampler, detokenizer, log-probabilities."""
