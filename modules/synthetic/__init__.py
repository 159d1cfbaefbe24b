"""Small sets of images: joining them, choosing classes, and training networks on them."""
