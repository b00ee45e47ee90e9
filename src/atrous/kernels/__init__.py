"""What torch has slower ways for on a CPU: the same numbers, sooner.

    quick_inference   takes convolutions of a network for others: winograd (dense 3x3), atrous_depthwise
    quick_gradients   the same for training, where oneDNN's gradients are slow or wrong: depthwise, dilated, strided
    upsampling        labels and probabilities from coarse scores, row by row

Each stands aside where it cannot. Their loops, `*_kernels.py`, are compiled by numba: `compiled_loop` keeps the
machine code and runs it on torch's own threads (`openmp`) piece by piece (`region`). `jit` compiles those of the CRF,
and `simd` gives both rows of numbers as vector registers.
"""
