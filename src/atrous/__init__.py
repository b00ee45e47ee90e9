"""The DeepLab family for semantic segmentation."""
