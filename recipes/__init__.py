"""Short recipes that train Keras 3 models: settings, data, model, train."""
