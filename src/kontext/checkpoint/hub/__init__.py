"""Finds, downloads, lists and removes models of the Hugging Face Hub or a mirror of it.

Files are stored in the cache of `huggingface_hub`, which other programs share; a model is a folder of links
to them in the models folder. Nothing here imports torch.
"""
