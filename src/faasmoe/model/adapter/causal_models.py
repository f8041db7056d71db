"""transformers' table of causal language models, by the class of their config."""

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

__all__ = ["MODEL_FOR_CAUSAL_LM_MAPPING"]
