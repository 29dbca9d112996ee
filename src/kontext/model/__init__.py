"""The networks as plain `nn.Module`s, named as in the files of FLUX.1 Kontext."""
