"""What the paper says: GLM, built of Megatron-core parts."""
