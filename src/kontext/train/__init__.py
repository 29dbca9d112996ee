"""Training: the autoencoder of the world, the flow model, its distillation, and LoRA; writes what
`checkpoint` reads.
"""
