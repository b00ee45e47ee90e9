"""A page about a model that a person can show around: one HTML file with numbers, charts and pictures.

source.py   what is reported on: a run folder or a checkpoint, and its data
measure.py  one pass over the data: scores, and what is needed of each picture
charts.py   lines, bars and matrices as inline SVG and HTML
page.py     the page
"""
