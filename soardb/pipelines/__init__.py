"""Research methods over what is stored: each reads a collection or arrays and gives a report.

    collections, arrays -> [pipelines/] -> selections, decisions, models

select/    which k points to label or train on: weighted k-center
diagnose/  bias and variance of each sample of an ensemble, and whether they are aligned
embed/     encoders fine-tuned on pairs, which give points their vectors
spactor/   an encoder-decoder pretrained by two tasks, then by one

They use the public calls of a collection alone, so an embedded one, a served one and one over
shards will do. Nothing else in soardb knows of them.
"""
