"""A callback as people write them for Keras. It would derive from `keras.callbacks.Callback`, and does not need to here."""


class BestEpoch:
    """Prints the best epoch, and stops when the validation loss has not improved for a while."""

    def __init__(self, patience=5):
        self.patience = patience
        self.best, self.epoch = None, 0

    def set_model(self, model):
        self.model = model

    def on_epoch_end(self, epoch, logs=None):
        loss = logs["val_loss"]
        if self.best is None or loss < self.best:
            self.best, self.epoch = loss, epoch
        elif epoch - self.epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        print(f"the best epoch was {self.epoch + 1}, with a validation loss of {self.best:.4f}")
