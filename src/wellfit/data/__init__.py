"""From labelled images to batches: sources, audit, split, pixel store, preprocessing, augmentation."""
