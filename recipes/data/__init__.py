"""Where examples come from: TensorFlow Datasets, the reader's own files, the offline samples."""
