"""Linear layers of the dense part: their kernels, the threads that share them, and the layers that use both."""
