"""The network: neurons, synapses, mixing and patches, and what is built of them."""
