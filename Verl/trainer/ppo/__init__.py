"""One trainer, three small subclasses, three small estimator modules."""
