"""The parts of the MedProtect module, one thing a file. Nothing here loads torch, monai or scikit-image before it is needed."""
