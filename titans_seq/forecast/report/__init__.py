"""The report of a finished training: what is measured for it, its plots, and the page. The plots need plotly, the page
jinja2.
"""
