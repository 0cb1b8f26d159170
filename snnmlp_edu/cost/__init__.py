r"""What inference costs: every operation counted, then priced.

A spike that arrives at a map makes it add one weight for each output that it reaches, its *fan-out*. These
additions are the layer's *synaptic operations*:

.. math::
    N = \sum_{\text{spikes}} \text{fan-out}

counted spike by spike, so exactly: at the border of a grid a convolution's kernel hangs over, and its
fan-out is smaller there. Where values are not 0 or 1, each of the map's `dense_macs` is a multiply-accumulate
operation (MAC): in the stem, which gets pixels, and everywhere in a ReLU twin. A stem that gets the spikes
of a recording adds.

The network is taken as folded (`snnmlp_edu.mfi.fold_batch_norm`), whether it is or not: its spikes are the
same. The cost of batch norm that is left unfolded is in `Cost.before_folding`. A neuron's leak, bias,
comparison and reset are one *update* and, as usual in this field, have no price.
"""

from __future__ import annotations

from . import table
from .counting import count_operations, relu_twin
from .results import Cost, LayerCost, Operations

__all__ = ["Cost", "LayerCost", "Operations", "count_operations", "relu_twin", "table"]
