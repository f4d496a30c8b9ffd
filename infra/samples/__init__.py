"""A small knowledge base to try everything with: the pages of Torvane, an invented company that shows warehouses where
their hours go. `fairlead up` and `fairlead demo` load it for their tenant; the simulated models answer in its words.
"""
