"""Training of the autoencoder, the flow model, its distillation and LoRA; output is read by `checkpoint`."""
