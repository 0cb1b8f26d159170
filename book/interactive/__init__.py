"""Figures that answer at once: plots with controls that run in the reader's browser, without a kernel.

A chapter asks for one by naming it in the metadata of a cell that draws a figure::

    ---
    interactive: lif_playground
    mystnb:
      figure:
        name: fig-lif-playground
    ---

In a notebook the figure stands as the cell draws it. In the rendered book the explorer takes its place;
without JavaScript, and on paper, the figure stays. Each module here has a `build` function that returns a
Bokeh layout, and beside it the script that the controls run, in a file of the same name. `live_network` does
without Bokeh: it is a page part of its own.
"""
