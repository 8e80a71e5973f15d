"""The embedded server: TF Serving's API and flags, for laptops and tests."""
