"""Models by name on the Hugging Face Hub or a mirror of it: found, downloaded, listed, removed.

Files go into the cache of `huggingface_hub`, which other programs share; a folder of links in the models
folder makes a model of them. Nothing here imports torch.
"""
