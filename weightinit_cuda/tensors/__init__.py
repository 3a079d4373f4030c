"""Which memory is filled, and where it lies in the whole: named tensors of a model, boxes of indices, shards."""
