"""The networks as plain `nn.Module`s, named as in the files of FLUX.1 Kontext; they know nothing of files or
pictures.
"""
