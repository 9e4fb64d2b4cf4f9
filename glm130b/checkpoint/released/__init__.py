"""The checkpoint layout that GLM-130B was released in: in and out, weight for weight."""
