"""The hot arithmetic, three times over: C++ (native.py), Numba (portable.py), NumPy (reference.py).

    everything that computes -> [kernels] -> nothing of ours but errors.py

reference.py is the specification; dispatch.py chooses; layout.py names the shared arrays. Nothing
here checks shapes or values: the gate is soardb/arrays.py.
"""
