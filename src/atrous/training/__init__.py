"""The parts of a training, which `atrous.train` puts together.

run         what a run is, and the files that it leaves
state       the moment from which it can go on
batches     pictures into steps
objective   networks and losses by their recipe
optimizer   groups of weights and their learning rates
ema         the moving average of the weights
launch      devices, precision, processes
bounds      what the numbers of a recipe may be
"""
