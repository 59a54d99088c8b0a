"""The bar of a run: when it appears and moves (`watch`), what it looks like (`bars`), its Cancel button (`panels`)."""
