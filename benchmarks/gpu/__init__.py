# SPDX-License-Identifier: Apache-2.0
"""What times and checks the CUDA kernels: on a GPU with PyTorch, or on the emulator."""
